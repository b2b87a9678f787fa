"""Prediction sets that grow with doubt: which classes belong to the answer so that the true one is among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medssl.errors import BundleError

# Chosen on train (out of fold) and validation images alone, see docs/uncertainty.md: with three bands and this mass the
# least confident third and every class keep a coverage of 0.87 in nine of ten draws of calibration groups.
MINIMUM_MASS = 0.8
BANDS = 3


def enough_groups(level: float) -> int:
    """From how many groups on a coverage of `level` can be promised: the least G with G / (G + 1) >= level."""
    return math.ceil(level / (1 - level) - 1e-9)


def mass_members(probabilities: np.ndarray, mass: float) -> np.ndarray:
    """Bool `[N, C]`: the fewest most probable classes whose probabilities `[N, C]` add up to `mass`."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    members = np.empty(probabilities.shape, bool)
    np.put_along_axis(members, order, before < mass - 1e-9, axis=1)
    return members


def group_quantile(scores: np.ndarray, groups: np.ndarray, level: float) -> float:
    """The conformal quantile of scores `[N]` of images in groups `[N]`; the highest score where groups are too few.

    Images of a group are not independent, so that groups are what is counted: every group weighs 1 / (G + 1), shared
    by its images, and the last 1 / (G + 1) is the new group's (Lee, Barber & Willett 2023, arXiv 2306.06342). That
    covers a random image of a random group. Where groups differ in size a random image is another thing; the quantile
    with equal weights of all images, N * (G + 1) / G of them, is taken too, and the higher one counts.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    count = len(sizes)
    order = np.argsort(scores, kind="stable")
    quantiles = []
    for weights in (1 / (sizes[group] * (count + 1)), np.full(len(scores), count / (count + 1) / len(scores))):
        rank = int(np.searchsorted(np.cumsum(weights[order]), level - 1e-9))
        quantiles.append(scores[order[min(rank, len(scores) - 1)]])
    return float(max(quantiles))


@dataclass(frozen=True)
class AdaptiveSets:
    """Prediction sets by bands of confidence, calibrated on validation.

    A set holds the fewest most probable classes that make up `minimum_mass`, and every class from
    `probabilities[band]` on, where `edges [B - 1]` part the confidence (highest probability) into bands, lowest first.
    `groups [B]` says how many validation groups stand behind each band, `class_groups` how many behind each class.
    Nothing is random, so that answers repeat.
    """

    edges: list[float]
    probabilities: list[float]
    groups: list[int]
    class_groups: dict[str, int]
    minimum_mass: float = MINIMUM_MASS

    def __post_init__(self) -> None:
        if not len(self.edges) + 1 == len(self.probabilities) == len(self.groups) or not 0 < self.minimum_mass <= 1:
            raise BundleError(
                f"Prediction sets with edges {self.edges}, probabilities {self.probabilities}, groups {self.groups} "
                f"and minimum_mass {self.minimum_mass} do not fit: one edge fewer than bands, a mass in (0, 1]."
            )

    def bands(self, probabilities: np.ndarray) -> np.ndarray:
        """The band `[N]` of each image with probabilities `[N, C]`."""
        return np.searchsorted(self.edges, probabilities.max(axis=1), side="right")

    def members(self, probabilities: np.ndarray) -> np.ndarray:
        """Bool `[N, C]`: the classes in the set of each image, of calibrated probabilities `[N, C]`."""
        thresholds = np.asarray(self.probabilities)[self.bands(probabilities), None]
        return mass_members(probabilities, self.minimum_mass) | (probabilities >= thresholds)

    def promised(self, level: float) -> float:
        """The coverage that validation can promise in every band: `level`, or G / (G + 1) where groups are few."""
        return min(level, *(count / (count + 1) for count in self.groups))

    def thin_classes(self, level: float) -> list[str]:
        """The classes with too few validation groups to tell whether `level` of them is covered."""
        return [label for label, count in self.class_groups.items() if count < enough_groups(level)]

    def summary(self) -> list[str]:
        """The settings in words: the mass, and from which probability on classes are added in which band."""
        ends = [0.0, *self.edges, 1.0]
        added = [
            f"every class from {probability:.4g} at a confidence of {low:.4g} to {high:.4g}"
            for probability, low, high in zip(self.probabilities, ends, ends[1:], strict=False)
            if probability < 1
        ]
        return [f"prediction sets of at least {self.minimum_mass:g} of the probability", *added]

    def to_dict(self) -> dict:
        """The fields in plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdaptiveSets:
        """The inverse of `to_dict`. Raises BundleError when values are missing, unknown or do not fit."""
        try:
            return cls(**values)
        except TypeError as error:
            raise BundleError(f"The prediction sets of the head's config do not fit: {error}.") from error


def confidence_edges(confidence: np.ndarray, groups: np.ndarray, level: float, bands: int = BANDS) -> list[float]:
    """Edges that part confidences `[N]` into equal bands, or fewer of them where a band would have too few groups."""
    for count in range(bands, 1, -1):
        edges = np.quantile(confidence, np.arange(1, count) / count)
        band = np.searchsorted(edges, confidence, side="right")
        if min(len(set(groups[band == number])) for number in range(count)) >= enough_groups(level):
            return edges.tolist()
    return []


def calibrate_sets(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    label_names: Sequence[str],
    level: float,
    mass: float = MINIMUM_MASS,
    bands: int = BANDS,
) -> AdaptiveSets:
    """Sets that hold the true class in `level` of the images in every band of confidence.

    Conformal prediction within categories (Vovk, Gammerman & Shafer 2005, section 4.5), categories being thirds of
    confidence, over the adaptive sets of Romano, Sesia & Candes 2020 (arXiv 2006.02544) at a fixed mass: the score of
    an image is 0 where the true class is in the set of that mass, else 1 - p(true class). An average over all
    images would be bought with the easy ones. `probabilities [N, C]`, `labels [N]` and `groups [N]` are validation's.
    """
    true = np.arange(len(labels)), labels
    inside = mass_members(probabilities, mass)[true]
    scores = np.where(inside, 0.0, 1 - probabilities[true])
    confidence = probabilities.max(axis=1)
    edges = confidence_edges(confidence, groups, level, bands)
    band = np.searchsorted(edges, confidence, side="right")
    own = [band == number for number in range(len(edges) + 1)]
    return AdaptiveSets(
        edges=edges,
        probabilities=[1 - group_quantile(scores[rows], groups[rows], level) for rows in own],
        groups=[len(set(groups[rows])) for rows in own],
        class_groups={name: len(set(groups[labels == index])) for index, name in enumerate(label_names)},
        minimum_mass=mass,
    )


def threshold_members(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Bool `[N, C]`: the sets of earlier heads, every class from one probability on and always the most probable."""
    best = np.arange(probabilities.shape[1]) == probabilities.argmax(axis=1)[:, None]
    return (probabilities >= threshold) | best


def conformal_probability(probabilities: np.ndarray, labels: np.ndarray, level: float) -> float:
    """The threshold of earlier heads: classes from this probability on hold the true one in `level` of cases.

    The score is 1 - p(true class), its quantile at ceil((n + 1) * level) / n (Angelopoulos & Bates 2021,
    arXiv 2107.07511, section 1). With too few calibration images every class is a member (threshold 0). It covers on
    average, and too little where confidence is low; kept to compare with.
    """
    scores = np.sort(1 - probabilities[np.arange(len(labels)), labels])
    rank = math.ceil((len(scores) + 1) * level)
    return float(1 - scores[rank - 1]) if rank <= len(scores) else 0.0
