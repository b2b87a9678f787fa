"""Confidence intervals by drawing whole groups (patients, slides), because images of one group are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LEVEL = 0.95
# Resamples are worked through in blocks of at most this many weights, which bounds the memory on large test sets.
BLOCK = 2_000_000

Statistic = Callable[[np.ndarray], np.ndarray]


def number_groups(groups: Sequence[str]) -> np.ndarray:
    """Groups `[N]` as whole numbers from 0 `[N]`."""
    return np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]


def group_draws(count: int, n_bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` groups is drawn, with replacement, in each resample: int `[R, G]`, rows sum to G."""
    return rng.multinomial(count, np.full(count, 1 / count), size=n_bootstrap)


def resample(groups: Sequence[str], statistic: Statistic, n_bootstrap: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
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
