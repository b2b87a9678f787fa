"""Plain heads that show what a backbone's embeddings are worth: linear, kNN, nearest centroid and retrieval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from medssl.data.labelled import Labelled
from medssl.heads.calibration import fit_temperature
from medssl.heads.config import Thresholds
from medssl.heads.fit_linear import choose_linear
from medssl.heads.prediction_sets import calibrate_sets
from medssl.metrics.retrieval import RETRIEVAL, retrieval_scores, similarity_blocks, unit

KS = (1, 3, 5, 10, 20)
ACCURACIES = ("accuracy", "balanced_accuracy")
LINEAR, KNN, CENTROID, RETRIEVED = "linear", "knn", "centroid", "retrieval"
CLASSIFIERS = (LINEAR, KNN, CENTROID)


@dataclass(frozen=True)
class Outcome:
    """How a head did on each test image: `scores [N]`, 0 or 1 (retrieval: a share, NaN where no case can be right).

    `setting` is what validation chose. A classifier also has what it `predicted`, int `[N]`; the linear head its
    calibrated `probabilities [N, C]` and conformal prediction `sets`, bool `[N, C]`.
    """

    head: str
    metrics: tuple[str, ...]
    scores: np.ndarray
    setting: str = ""
    predicted: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    sets: np.ndarray | None = None


def doubles(part: Labelled) -> np.ndarray:
    """Embeddings in float64: untrained ones may all have cosines near 1, where float32 confuses their order."""
    return part.embeddings.astype(np.float64)


def nearest_cases(queries: Labelled, cases: Labelled, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and votes `[N, K]` of the most similar cases of other groups, best first.

    A vote is 1 + cosine, so that no case votes against its own label; 0 where no case is left.
    """
    labels, votes = [], []
    blocks = similarity_blocks(doubles(queries), queries.groups, doubles(cases), cases.groups)
    for _, similarity, allowed in blocks:
        similarity = np.where(allowed, similarity, -np.inf)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        found = np.take_along_axis(similarity, order, axis=1)
        labels.append(cases.labels[order])
        votes.append(np.where(np.isfinite(found), 1 + found, 0))
    return np.concatenate(labels), np.concatenate(votes)


def count_votes(labels: np.ndarray, votes: np.ndarray, k: int, classes: int) -> np.ndarray:
    """The label with most votes among the first k cases `[N]`, the first of equal ones; -1 where no case is left."""
    totals = (np.eye(classes)[labels[:, :k]] * votes[:, :k, None]).sum(axis=1)
    return np.where(totals.max(axis=1) > 0, totals.argmax(axis=1), -1)


def predict_knn(train: Labelled, validation: Labelled, test: Labelled, classes: int) -> tuple[np.ndarray, int]:
    """Labels `[N]` by similarity-weighted vote of the k most similar training cases; k is the smallest best on val."""
    found = nearest_cases(validation, train, max(KS))
    right = {k: float((count_votes(*found, k, classes) == validation.labels).mean()) for k in KS}
    chosen = max(KS, key=right.__getitem__)
    return count_votes(*nearest_cases(test, train, chosen), chosen, classes), chosen


def predict_centroid(train: Labelled, test: Labelled, classes: int) -> np.ndarray:
    """Labels `[N]` of the nearest class mean of unit embeddings, by cosine."""
    vectors = unit(doubles(train))
    means = np.stack([vectors[train.labels == label].mean(axis=0) for label in range(classes)])
    return (test.embeddings @ unit(means).T).argmax(axis=1)


def precision_at_ranks(queries: Labelled, cases: Labelled) -> np.ndarray:
    """P@1, P@5 and AP@10 `[N, 3]` of each query, as in `evaluation.retrieval_metrics`."""
    return retrieval_scores(
        doubles(queries), queries.labels, queries.groups, doubles(cases), cases.labels, cases.groups
    )


def judge(head: str, predicted: np.ndarray, test: Labelled, setting: str = "") -> Outcome:
    """What a classifier predicted, int `[N]`, as an outcome."""
    return Outcome(head, ACCURACIES, (predicted == test.labels).astype(np.float64), setting, predicted)


def score_linear(train: Labelled, validation: Labelled, test: Labelled, classes: int) -> Outcome:
    """The linear head that `fit_head` fits: C, temperature and prediction sets from validation."""
    weight, bias, C, _ = choose_linear(train, validation, classes)
    logits, known = (part.embeddings @ weight.T + bias for part in (test, validation))
    temperature = fit_temperature(known, validation.labels)
    probabilities = softmax(logits / temperature, axis=1)
    names = [str(index) for index in range(classes)]
    calibrated = softmax(known / temperature, axis=1)
    adaptive = calibrate_sets(calibrated, validation.labels, validation.groups, names, Thresholds.conformal_level)
    predicted, sets = logits.argmax(axis=1), adaptive.members(probabilities)
    scores = (predicted == test.labels).astype(np.float64)
    return Outcome(LINEAR, ACCURACIES, scores, f"C={C:g}", predicted, probabilities, sets)


def score_classifiers(train: Labelled, validation: Labelled, test: Labelled, classes: int) -> list[Outcome]:
    """How every classifier, fitted on train and set on validation, does on each test image."""
    knn, k = predict_knn(train, validation, test, classes)
    return [
        score_linear(train, validation, test, classes),
        judge(KNN, knn, test, f"k={k}"),
        judge(CENTROID, predict_centroid(train, test, classes), test),
    ]


def score_heads(train: Labelled, validation: Labelled, test: Labelled, classes: int) -> list[Outcome]:
    """How every head, fitted on train and set on validation, does on each test image."""
    precisions = precision_at_ranks(test, train).T
    found = [Outcome(RETRIEVED, (name,), scores) for name, scores in zip(RETRIEVAL, precisions, strict=True)]
    return [*score_classifiers(train, validation, test, classes), *found]
