"""What validation decides of a fitted head: its temperature, its prediction sets and its familiarity threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from medssl.data.labelled import Labelled
from medssl.heads.config import Thresholds
from medssl.heads.prediction_sets import calibrate_sets
from medssl.metrics.retrieval import unit

FAMILIARITY_PERCENTILE = 5


def smoothed_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropies `[N]` of logits `[N, C]` against labels held true with probability 1 - 1 / (N + 2).

    Platt's targets (Platt 1999): where validation is all right, plain likelihood asks for infinite confidence.
    """
    count, classes = logits.shape
    doubt = 1 / (count + 2)
    targets = np.full((count, classes), doubt / (classes - 1))
    targets[np.arange(count), labels] = 1 - doubt
    return -(targets * log_softmax(logits, axis=1)).sum(axis=1)


def smoothed_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean of the smoothed losses."""
    return float(smoothed_losses(logits, labels).mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature (Guo et al. 2017, arXiv 1706.04599) that minimises the smoothed loss."""
    optimum = minimize_scalar(
        lambda log_t: smoothed_loss(logits / math.exp(log_t), labels), bounds=(-3, 3), method="bounded"
    )
    return float(math.exp(optimum.x))


def nearest_similarity(
    queries: Labelled, cases: Labelled, neighbors: int = Thresholds.familiarity_neighbors
) -> np.ndarray:
    """Mean cosine `[N]` of each query to its nearest cases of other groups."""
    similarity = unit(queries.embeddings) @ unit(cases.embeddings).T
    similarity[queries.groups[:, None] == cases.groups[None, :]] = -np.inf
    best = np.sort(similarity, axis=1)[:, -neighbors:]
    best[~np.isfinite(best)] = np.nan
    return np.nanmean(best, axis=1)


def familiarity_threshold(validation: Labelled, train: Labelled) -> float | None:
    """The similarity to training cases of other groups below which few validation images lie; None without any such."""
    similarity = nearest_similarity(validation, train)
    known = similarity[np.isfinite(similarity)]
    return float(np.percentile(known, FAMILIARITY_PERCENTILE)) if len(known) else None


def calibrate(
    logits: np.ndarray, train: Labelled, validation: Labelled, label_names: Sequence[str]
) -> tuple[float, Thresholds]:
    """The temperature of validation logits `[N, C]`, and the prediction sets and familiarity threshold."""
    temperature = fit_temperature(logits, validation.labels)
    probabilities = softmax(logits / temperature, axis=1)
    level = Thresholds.conformal_level
    return temperature, Thresholds(
        conformal_level=level,
        adaptive=calibrate_sets(probabilities, validation.labels, validation.groups, label_names, level),
        familiarity=familiarity_threshold(validation, train),
    )
