"""Confounds: labels that come with a source, a camera or another fact that says nothing of the disease."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2_contingency
from sklearn.cluster import KMeans

from medssl.audit.findings import INFO, WARNING, Finding
from medssl.audit.shortcuts import FOLDS, FRAME, SOURCE, Shortcut, probe_features, probe_sources
from medssl.audit.subject import IMAGES, Check, Outcome, Subject

# Excess of balanced accuracy over chance (0 chance, 1 perfect), or one class told from the rest, worth a warning.
SHORTCUT_EXCESS, SHORTCUT_AUROC = 0.5, 0.95
# Cohen (1988), Statistical power analysis, chapter 7: 0.3 is a medium, 0.5 a large association.
V_INFO, V_WARNING = 0.3, 0.5
# An association that chance makes more often than this is not told: with few images V is large by itself.
CHANCE = 0.001
CAMERAS = 8  # the most kinds of frame that are told apart
OTHER = "other"


@dataclass(frozen=True)
class Association:
    """How tightly a fact (source, or kind of frame) and the label hang together, as Cramer's V, 0 to 1.

    `v_by_class` is the same for each class against the rest, `p_value` the smallest chi-square p over all of them
    times their number (Bonferroni), `counts` the table (fact -> label -> count) over `groups` groups.
    """

    name: str
    v: float
    v_by_class: dict[str, float]
    p_value: float
    groups: int
    counts: dict[str, dict[str, int]]

    @property
    def strongest(self) -> float:
        """The largest V: of the whole table, or of one class against the rest."""
        return max(self.v, *self.v_by_class.values())


def cramers_v(table: np.ndarray) -> float:
    """Cramer's V with the bias correction of Bergsma (2013), from counts [R, K]: 0 no association, 1 the closest.

    phi2 = chi2 / n is lowered by what chance alone makes of it, (R-1)(K-1)/(n-1), but not below 0; R and K are lowered
    to R - (R-1)^2/(n-1) and K - (K-1)^2/(n-1); V = sqrt(phi2 / (min(R, K) - 1)) of the lowered values. Rows and
    columns without a count do not matter; with one row, one column, or fewer than two counts, V is 0.
    Source: W. Bergsma, A bias-correction for Cramer's V and Tschuprow's T, J. Korean Stat. Soc. 42 (2013) 323-328.
    """
    table = filled(table)
    rows, columns = table.shape
    n = table.sum()
    if min(rows, columns) < 2 or n < 2:
        return 0.0
    phi2 = max(0.0, chi_square(table)[0] / n - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(side - (side - 1) ** 2 / (n - 1) for side in (rows, columns)) - 1
    return float(min(1.0, np.sqrt(phi2 / smaller))) if smaller > 0 else 0.0


def filled(table: np.ndarray) -> np.ndarray:
    """Counts [R, K] without the rows and columns that hold none."""
    table = np.asarray(table, np.float64)
    return table[table.sum(1) > 0][:, table.sum(0) > 0]


def chi_square(table: np.ndarray) -> tuple[float, float]:
    """Pearson's statistic of counts [R, K] without empty rows or columns, and its p-value."""
    test = chi2_contingency(table, correction=False)
    return float(test.statistic), float(test.pvalue)


def chance_of(table: np.ndarray) -> float:
    """The p-value of Pearson's chi-square test of counts [R, K]; 1 where there is nothing to test."""
    table = filled(table)
    return chi_square(table)[1] if min(table.shape) > 1 else 1.0


def associate(
    name: str, facts: np.ndarray, labels: np.ndarray, groups: np.ndarray, names: list[str]
) -> Association | None:
    """How tightly facts [N] and labels [N] hang together; None where there are not two facts and two labels.

    Each (group, fact, label) counts once, because ten slices of one patient say no more of the source than one. Facts
    of fewer than five of them share one row: a source of its own for each image says nothing of the label.
    """
    _, codes = np.unique(groups, return_inverse=True)
    kinds, facts = np.unique(np.asarray(facts).astype(str), return_inverse=True)
    _, fact, label = np.unique(np.column_stack([codes, facts, labels]), axis=0).T
    table = np.zeros((len(kinds), len(names)), int)
    np.add.at(table, (fact, label), 1)
    rare = table.sum(1) < FOLDS
    if rare.any():
        kinds, table = np.append(kinds[~rare], OTHER), np.vstack([table[~rare], table[rare].sum(0)])
    if min(filled(table).shape) < 2:
        return None
    present = np.flatnonzero(table.sum(0))
    against = {names[c]: np.column_stack([table[:, c], table.sum(1) - table[:, c]]) for c in present}
    tables = [table, *against.values()]
    return Association(
        name=name,
        v=cramers_v(table),
        v_by_class={label: cramers_v(part) for label, part in against.items()},
        p_value=min(1.0, len(tables) * min(chance_of(part) for part in tables)),
        groups=len(np.unique(codes)),
        counts={str(kind): dict(zip(names, row, strict=True)) for kind, row in zip(kinds, table.tolist(), strict=True)},
    )


def frame_kinds(frames: np.ndarray, seed: int) -> np.ndarray:
    """The kind of frame of each image, `frame 1` ... [N], from their frames [N, F] alone, without looking at labels.

    k-means with at most eight kinds: images of one camera, or cut in one way, have one dark ground. Empty where all
    are alike.
    """
    different = len(np.unique(frames, axis=0)) if len(frames) else 0
    if different < 2:
        return np.empty(0, str)
    kinds = KMeans(min(CAMERAS, different), n_init=4, random_state=seed).fit_predict(frames)
    return np.array([f"frame {kind + 1}" for kind in kinds])


def confound_findings(shortcuts: list[Shortcut], associations: list[Association]) -> list[Finding]:
    """A warning for each fact that gives the label, or one label, away; an info where it does so in part.

    Warning: balanced accuracy half-way from chance to perfect, or AUROC 0.95 for a class, or Cramer's V 0.5. Info:
    V 0.3. V counts only where chance makes such a table less often than once in a thousand.
    """
    probes, found = {item.name: item for item in shortcuts}, {item.name: item for item in associations}
    findings = []
    for name, kind in ((SOURCE, "source confound"), (FRAME, "camera confound")):
        item, association = probes.get(name), found.get(name)
        strength = association.strongest if association and association.p_value < CHANCE else 0.0
        telling = item is not None and is_telling(item)
        if telling or strength >= V_INFO:
            severity = WARNING if telling or strength >= V_WARNING else INFO
            findings.append(Finding(kind, severity, 1, confound_text(name, item, association)))
    others = (item for item in shortcuts if item.name not in (SOURCE, FRAME))
    return findings + [shortcut_finding(item) for item in others if is_telling(item)]


def is_telling(item: Shortcut) -> bool:
    """Whether a trivial feature predicts the label, or one class, too well."""
    return item.excess >= SHORTCUT_EXCESS or max(item.auroc.values()) >= SHORTCUT_AUROC


def shortcut_finding(item: Shortcut) -> Finding:
    """The warning for one shortcut."""
    text = f"From {item.name} alone {predicted(item)} A model may have learnt this instead of the disease."
    return Finding("shortcut", WARNING, 1, text)


def predicted(item: Shortcut) -> str:
    """How well the label is predicted, in words."""
    told = [f"{name} {value:.2f}" for name, value in item.auroc.items() if value >= SHORTCUT_AUROC]
    classes = f" Told from the rest (AUROC): {', '.join(told)}." if told else ""
    return (
        f"the label is predicted with balanced accuracy {item.balanced_accuracy:.2f} "
        f"[{item.low:.2f}, {item.high:.2f}] (chance {item.chance:.2f}).{classes}"
    )


def confound_text(name: str, item: Shortcut | None, association: Association | None) -> str:
    """What the source, or the frame, gives away."""
    parts = []
    if name == FRAME:
        parts.append(f"The label hangs on the {FRAME}, the dark ground that a camera, scanner or crop leaves.")
    if association:
        of = "source" if name == SOURCE else f"kind of {FRAME} (found without the labels)"
        classes = ", ".join(f"{label} {v:.2f}" for label, v in association.v_by_class.items())
        parts.append(
            f"Cramer's V of label and {of} is {association.v:.2f} over {association.groups} groups, each class against "
            f"the rest: {classes} (0 independent, 1 the closest)."
        )
    if item:
        parts.append(f"From {name} alone {predicted(item)}")
    return " ".join([*parts, "A model may have learnt this instead of the disease."])


def check_confounds(subject: Subject) -> Outcome:
    """What predicts the label without looking at the picture's content, and what hangs together with it."""
    labels, groups, names, seed = subject.labels, subject.groups, subject.label_names, subject.seed
    features = [item.features for item in subject.fingerprints]
    shortcuts = probe_features(features, labels, groups, names, seed)
    shortcuts += probe_sources(subject.sources, labels, groups, names, seed)
    kinds = frame_kinds(np.array([item[FRAME] for item in features]), seed)
    facts = {SOURCE: subject.sources, **({FRAME: kinds} if len(kinds) else {})}
    every = [associate(name, values, labels, groups, names) for name, values in facts.items()]
    associations = [item for item in every if item is not None]
    fields = {"shortcuts": shortcuts, "associations": associations}
    return Outcome(confound_findings(shortcuts, associations), fields)


CONFOUNDS = Check("confounds", IMAGES, check_confounds)
