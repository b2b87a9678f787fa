"""Confidence intervals by drawing whole groups (patients, slides), because images of one group are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LEVEL = 0.95
# Resamples are worked through in blocks of at most this many weights, which bounds the memory on large test sets.
BLOCK = 2_000_000

Statistic = Callable[[np.ndarray], np.ndarray]
Groups = Sequence[str] | np.ndarray


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A quotient that is NaN, without complaint, where nothing was drawn."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / below


def mean_known(values: np.ndarray) -> np.ndarray:
    """Row means `[R]` of `[R, C]` over the entries that are known; NaN where none is."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))


def weighted_means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means `[R, M]` of values `[N, M]` under weights `[R, N]`."""
    return ratio(weights @ values, weights.sum(axis=1, keepdims=True))


def class_means(weights: np.ndarray, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Per class means `[R, C]` of values `[N]` under weights `[R, N]`, classes in the order of their numbers; NaN where
    a resample holds no image of a class.
    """
    of_class = (labels[:, None] == np.unique(labels)).astype(np.float64)
    return ratio(weights @ (of_class * values[:, None]), weights @ of_class)


def mean_statistic(values: np.ndarray, labels: np.ndarray | None = None) -> Statistic:
    """Weights `[R, N]` -> means `[R, M]` of values `[N, M]`; with labels `[N]` the mean of the classes' means, which of
    what is right or wrong is the balanced accuracy, over the classes that a resample holds.
    """
    if labels is None:
        return lambda weights: weighted_means(weights, values)
    return lambda weights: np.column_stack([mean_known(class_means(weights, column, labels)) for column in values.T])


def number_groups(groups: Groups) -> np.ndarray:
    """Groups `[N]` as whole numbers from 0 `[N]`."""
    return np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]


def group_draws(count: int, n_bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` groups is drawn, with replacement, in each resample: int `[R, G]`, rows sum to G."""
    return rng.multinomial(count, np.full(count, 1 / count), size=n_bootstrap)


def resample(groups: Groups, statistic: Statistic, n_bootstrap: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A statistic on the data as they are `[M]`, and on resamples of whole groups `[R, M]`.

    `statistic` takes image weights `[R, N]` (how often each image is drawn) and gives `[R, M]`; weighting is the same
    as repeating images, and lets all resamples be computed at once.
    """
    numbers = number_groups(groups)
    count = int(numbers.max()) + 1
    value = statistic(np.ones((1, len(numbers))))[0]
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // len(numbers))
    blocks = [np.empty((0, len(value)))]
    for start in range(0, n_bootstrap, block):
        draws = group_draws(count, min(block, n_bootstrap - start), rng)
        blocks.append(statistic(draws[:, numbers].astype(np.float64)))
    return value, np.concatenate(blocks)


def interval(
    value: float, resampled: np.ndarray, groups: int, part_groups: Sequence[int] | None
) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic of so many groups from its resamples `[R]`; NaN where unknown.

    `part_groups` is None for an unbounded statistic. For one within 0 to 1 it gives the number of groups behind each of
    its equal parts (one part for a share; one a class for a mean over classes). Where no error (or nothing but errors)
    was seen, every resample repeats that, and the bootstrap would claim certainty; the open end is then the exact
    binomial bound with groups as trials (Clopper & Pearson 1934: 0.025^(1/G), near the rule of three), at 0.025 / parts
    for each part, averaged. For F1 and AUROC that is an approximation. A single group tells nothing of the spread
    between groups: the interval is then all of 0 to 1, or NaN for an unbounded statistic.
    """
    tail = (1 - LEVEL) / 2
    if not np.isfinite(value):
        return np.nan, np.nan
    if groups < 2:
        return (np.nan, np.nan) if part_groups is None else (0.0, 1.0)
    if part_groups is not None and value in (0.0, 1.0):
        bound = float(np.mean([(tail / len(part_groups)) ** (1 / count) for count in part_groups]))
        return (bound, 1.0) if value == 1.0 else (0.0, 1 - bound)
    known = resampled[np.isfinite(resampled)]
    if len(known) < 2:
        return np.nan, np.nan
    low, high = np.percentile(known, (100 * tail, 100 * (1 - tail)))
    return float(low), float(high)


def bounded_mean(
    values: np.ndarray,
    groups: np.ndarray,
    labels: np.ndarray | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The mean of values `[N]` within 0 to 1, and its 95 % interval over groups `[N]`.

    With labels `[N]` it is the mean of the classes' means: the balanced accuracy, of what is right or wrong.
    """
    values, groups = np.asarray(values, np.float64), np.asarray(groups)
    value, resampled = resample(groups, mean_statistic(values[:, None], labels), n_bootstrap, seed)
    total = len(np.unique(groups))
    parts = [total] if labels is None else [len(np.unique(groups[labels == label])) for label in np.unique(labels)]
    low, high = interval(float(value[0]), resampled[:, 0], total, parts)
    return float(value[0]), low, high
