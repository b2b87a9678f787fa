"""How the images of one group (a patient, slide or series) become one answer: chosen and calibrated on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from medssl.data.labelled import Labelled
from medssl.heads.calibration import fit_temperature, smoothed_loss
from medssl.heads.config import Thresholds
from medssl.heads.prediction_sets import AdaptiveSets, calibrate_sets
from medssl.metrics.classification import classification_metrics
from medssl.metrics.retrieval import unit

LOGITS, EVIDENCE = "logits", "evidence"
MEAN, BEST = "mean", "best"
# Of the mean over a group's images: of their log-probabilities (each may veto), or of their probabilities (each votes).
POOLINGS = {LOGITS: "the mean of its images' logits", EVIDENCE: "the mean of its images' probabilities"}
# Of a group's likeness to another: of all pairs of images, or of each image to the other group's nearest.
SIMILARITIES = {MEAN: "the mean over all pairs of images", BEST: "the mean of each image's best match"}
RANKS = 5
EPSILON = np.finfo(np.float64).tiny
RULE = "group_rule"  # where metrics.json holds it
UNFITTED = (
    "This bundle was built before groups were calibrated: a group's answer is the mean of its images' logits, with the "
    "prediction sets of single images. Build it again for a group's own."
)


@dataclass(frozen=True)
class Grouped:
    """Images by group: `names [G]` in order, and which of them each image `[N]` belongs to."""

    names: np.ndarray
    member: np.ndarray

    @classmethod
    def of(cls, groups: Sequence[str] | np.ndarray) -> Grouped:
        """The groups of images `[N]`."""
        return cls(*np.unique(np.asarray(groups).astype(str), return_inverse=True))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Means `[G, M]` of values `[N, M]`."""
        sums = np.zeros((len(self.names), values.shape[1]))
        np.add.at(sums, self.member, values)
        return sums / np.bincount(self.member, minlength=len(self.names))[:, None]

    def labels(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each group's label int `[G]`, and whether all its images have it, bool `[G]`."""
        first = np.full(len(self.names), -1)
        first[self.member[::-1]] = labels[::-1]
        pure = np.ones(len(self.names), bool)
        np.logical_and.at(pure, self.member, labels == first[self.member])
        return first, pure


def logarithm(values: np.ndarray) -> np.ndarray:
    """The natural logarithm, finite where a probability is 0."""
    return np.log(np.clip(values, EPSILON, 1))


def pooled_logits(probabilities: np.ndarray, groups: Grouped, pooling: str) -> np.ndarray:
    """Log-odds `[G, C]` of groups, before their temperature, of calibrated probabilities of images `[N, C]`."""
    if pooling == LOGITS:
        return groups.mean(logarithm(probabilities))
    return logarithm(groups.mean(probabilities))


def group_similarity(
    queries: np.ndarray, query_groups: Grouped, cases: np.ndarray, case_groups: Grouped, kind: str
) -> np.ndarray:
    """Cosines `[G, H]` of the groups of queries `[N, D]` to those of cases `[M, D]`, see SIMILARITIES."""
    if kind == MEAN:
        return query_groups.mean(unit(queries)) @ case_groups.mean(unit(cases)).T
    similarity = unit(queries) @ unit(cases).T
    best = np.full((len(queries), len(case_groups.names)), -np.inf)
    np.maximum.at(best.T, case_groups.member, similarity.T)
    return query_groups.mean(best)


@dataclass(frozen=True)
class GroupRule:
    """What makes one answer of a group's images; see POOLINGS and SIMILARITIES.

    `thresholds` are those of groups. `fitted` is what validation said ({} for a bundle without): groups, images, the
    loss of each pooling and the P@5 of each similarity.
    """

    thresholds: Thresholds
    pooling: str = LOGITS
    temperature: float = 1.0
    similarity: str = MEAN
    fitted: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, metrics: Mapping[str, Any], thresholds: Thresholds) -> GroupRule:
        """The rule in a bundle's metrics, else the default with the `thresholds` of images. Raises BundleError."""
        held = metrics.get(RULE)
        if not held:
            return cls(thresholds)
        return cls(
            Thresholds(held["conformal_level"], adaptive=AdaptiveSets.from_dict(held["adaptive"])),
            held["pooling"],
            held["temperature"],
            held["similarity"],
            held["fitted"],
        )

    def to_dict(self) -> dict:
        """The rule as metrics.json holds it."""
        return {
            "pooling": self.pooling,
            "temperature": self.temperature,
            "similarity": self.similarity,
            "conformal_level": self.thresholds.conformal_level,
            "adaptive": self.thresholds.adaptive.to_dict() if self.thresholds.adaptive else None,
            "fitted": dict(self.fitted or {}),
        }

    def sentence(self) -> str:
        """The rule in plain words."""
        if self.fitted is None:
            return UNFITTED
        return (
            f"A group's answer is {POOLINGS[self.pooling]} at a temperature of {self.temperature:.3f}; groups are "
            f"alike by {SIMILARITIES[self.similarity]}. Chosen and calibrated on {self.fitted['groups']} validation "
            f"groups of {self.fitted['images']} images."
        )

    def probabilities(self, probabilities: np.ndarray, groups: Grouped) -> np.ndarray:
        """Calibrated probabilities `[G, C]` of groups, of calibrated ones of their images `[N, C]`."""
        return softmax(pooled_logits(probabilities, groups, self.pooling) / self.temperature, axis=1)

    def without_each(self, probabilities: np.ndarray) -> np.ndarray:
        """What one group of images `[N, C]`, N of 2 and more, would say without each of them: `[N, C]`."""
        values = logarithm(probabilities) if self.pooling == LOGITS else probabilities
        rest = (values.sum(axis=0) - values) / (len(values) - 1)
        return softmax((rest if self.pooling == LOGITS else logarithm(rest)) / self.temperature, axis=1)


def fit_group_rule(
    probabilities: np.ndarray, validation: Labelled, train: Labelled, label_names: Sequence[str], level: float
) -> GroupRule | None:
    """The rule that validation chooses: pooling by the smoothed loss at its own temperature, similarity by P@5.

    `probabilities [N, C]` are the validation images'. Groups whose images have different labels are left out; None
    where no group is left.
    """
    groups = Grouped.of(validation.groups)
    labels, pure = groups.labels(validation.labels)
    if not pure.any():
        return None
    found = {}
    for pooling in POOLINGS:
        logits = log_softmax(pooled_logits(probabilities, groups, pooling)[pure], axis=1)
        temperature = fit_temperature(logits, labels[pure])
        found[pooling] = smoothed_loss(logits / temperature, labels[pure]), temperature, logits
    pooling = min(found, key=lambda name: found[name][0])
    _, temperature, logits = found[pooling]
    precisions = {kind: group_precision(validation, train, kind) for kind in SIMILARITIES}
    adaptive = calibrate_sets(
        softmax(logits / temperature, axis=1), labels[pure], groups.names[pure], label_names, level
    )
    fitted = {
        "groups": int(pure.sum()),
        "images": int(pure[groups.member].sum()),
        "mixed_groups": int((~pure).sum()),
        "losses": {name: float(loss) for name, (loss, _, _) in found.items()},
        "precision_at_5": precisions,
    }
    similarity = max(precisions, key=lambda name: precisions[name])
    return GroupRule(Thresholds(level, adaptive=adaptive), pooling, temperature, similarity, fitted)


def group_precision(queries: Labelled, cases: Labelled, kind: str) -> float:
    """The share of the 5 most similar other groups that have a group's label; 0 where there is nothing to compare."""
    asked, stored = Grouped.of(queries.groups), Grouped.of(cases.groups)
    wanted, pure = asked.labels(queries.labels)
    labels, stored_pure = stored.labels(cases.labels)
    similarity = group_similarity(queries.embeddings, asked, cases.embeddings, stored, kind)
    similarity[(asked.names[:, None] == stored.names[None]) | ~stored_pure[None]] = -np.inf
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :RANKS]
    allowed = np.isfinite(np.take_along_axis(similarity, order, axis=1))
    hits = (labels[order] == wanted[:, None]) & allowed
    usable = pure & allowed.any(axis=1)
    return float((hits.sum(axis=1) / np.maximum(allowed.sum(axis=1), 1))[usable].mean()) if usable.any() else 0.0


def group_metrics(
    rule: GroupRule,
    probabilities: np.ndarray,
    queries: Labelled,
    label_names: Sequence[str],
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict:
    """The figures of groups, each counted once: `classification` as `classification_metrics` gives it, over groups.

    `mixed_groups`, whose images have different labels, are not counted.
    """
    groups = Grouped.of(queries.groups)
    labels, pure = groups.labels(queries.labels)
    counted = {"groups": int(pure.sum()), "images": int(pure[groups.member].sum()), "mixed_groups": int((~pure).sum())}
    if not pure.any():
        return counted
    answers = rule.probabilities(probabilities, groups)[pure]
    sets = rule.thresholds.members(answers)
    found = classification_metrics(answers, labels[pure], groups.names[pure], label_names, sets, n_bootstrap, seed)
    return {**counted, "classification": found}
