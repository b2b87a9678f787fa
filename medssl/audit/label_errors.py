"""Check: probable label errors, by confident learning over cross-validated probabilities.

Northcutt, Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels, JAIR 70 (2021), arXiv
1911.00068. An own implementation: the known package is under the AGPL.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medssl.audit.findings import EMBEDDINGS, WARNING, Pair, finding, number
from medssl.audit.neighbors import vectors_of
from medssl.audit.subject import VECTORS, Check, Outcome, Subject

FOLDS = 5


def cross_validated(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Class probabilities `[N, C]` of vectors `[N, D]`, each from a classifier that saw no image of its group."""
    probabilities = np.zeros((len(labels), int(labels.max()) + 1))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, held in folds.split(vectors, labels, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        model.fit(vectors[train], labels[train])
        probabilities[np.ix_(held, model[-1].classes_)] = model.predict_proba(vectors[held])
    return probabilities


def suspects(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """The rows that confidently are of another class, with that class, most certain first.

    A row counts for class j where p(j) reaches the mean p(j) of the images labeled j, and p(j) is the largest such.
    The counts, scaled to the number of images of each given label, say how many rows of label i are of class j; so many
    are named, those with the largest p(j) - p(i) above 0 (the paper's prune by noise rate).
    """
    classes = probabilities.shape[1]
    thresholds = np.array(
        [probabilities[labels == k, k].mean() if (labels == k).any() else np.inf for k in range(classes)]
    )
    confident = np.where(probabilities >= thresholds, probabilities, -1)
    counted = confident.max(1) >= 0
    margins = probabilities - probabilities[np.arange(len(labels)), labels][:, None]
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], confident[counted].argmax(1)), 1)
    joint *= (np.bincount(labels, minlength=classes) / np.maximum(joint.sum(1), 1))[:, None]
    best: dict[int, int] = {}
    for given, meant in np.argwhere(joint > 0).tolist():
        cell = np.flatnonzero((labels == given) & (margins[:, meant] > 0))
        for row in cell[np.argsort(-margins[cell, meant], kind="stable")][: round(joint[given, meant])].tolist():
            best[row] = max(meant, best.get(row, meant), key=lambda label: margins[row, label])
    return sorted(best.items(), key=lambda pair: -margins[pair])


def check_label_errors(subject: Subject) -> Outcome:
    """Images that are probably of another class, each beside its nearest image of that class."""
    labels, groups, names = subject.labels, subject.groups, subject.label_names
    members = [len(set(groups[labels == label])) for label in range(len(names))]
    if min(members) < FOLDS:
        return Outcome()
    vectors = vectors_of(subject.dataset)
    rows = suspects(cross_validated(vectors, labels, groups, subject.seed), labels)
    if not rows:
        return Outcome()
    examples, pairs = [], []
    for row, meant in rows:
        own = (labels == meant) & (groups != groups[row])
        cosines = np.where(own, vectors @ vectors[row], -np.inf)
        nearest = int(cosines.argmax())
        examples.append(f"{subject.files[row]}: labeled {names[labels[row]]}, probably {names[meant]}")
        files = [subject.files[row], subject.files[nearest]]
        pairs.append(Pair([row, nearest], files, min(1.0, float(cosines[nearest])), EMBEDDINGS))
    text = (
        f"{number(rows, 'image')} of {len(labels)} look like another class to a classifier that did not see them. Some "
        "are label errors, others hard cases: look at them, each beside its nearest image of that class."
    )
    return Outcome([finding("probable label error", WARNING, examples, text, pairs)])


LABEL_ERRORS = Check("label errors", VECTORS, check_label_errors)
