"""Paired comparisons: differences on the same images and resamples, their p-values, and Holm's correction of these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medssl.metrics.bootstrap import group_draws, interval, mean_known, number_groups, ratio
from medssl.metrics.metric import check_groups, plain


def resampled_means(
    scores: np.ndarray, groups: Sequence[str], labels: np.ndarray | None, n_bootstrap: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means [M] of scores [N, M] as they are, and on resamples of whole groups [R, M]; the same draws for all columns.

    With labels [N], the means of the classes' means over the classes that were drawn. By sums over groups, which makes
    20,000 resamples cheap; `bootstrap.resample` with the same seed draws the same groups.
    """
    numbers = number_groups(groups)
    count = int(numbers.max()) + 1
    draws = group_draws(count, n_bootstrap, np.random.default_rng(seed))
    weights = np.vstack([np.ones((1, count)), draws])
    kinds = np.zeros(len(scores), int) if labels is None else np.unique(labels, return_inverse=True)[1]
    of_class = []
    for kind in range(int(kinds.max()) + 1):
        rows = kinds == kind
        sums, images = np.zeros((count, scores.shape[1])), np.zeros(count)
        np.add.at(sums, numbers[rows], scores[rows])
        np.add.at(images, numbers[rows], 1)
        of_class.append(ratio(weights @ sums, (weights @ images)[:, None]))
    means = np.stack(of_class, axis=2)
    found = np.column_stack([mean_known(column) for column in means.transpose(1, 0, 2)])
    return found[0], found[1:]


def bootstrap_p(gaps: np.ndarray) -> float | None:
    """The two-sided p-value of "no difference" from resampled differences [R]; None where none is known.

    Twice the smaller share of resamples on either side of 0 (ties on both), one added above and below (Davison &
    Hinkley 1997, section 4.2), at most 1: the level at which the percentile interval would reach 0.
    """
    known = gaps[np.isfinite(gaps)]
    if not len(known):
        return None
    smaller = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (1 + smaller) / (len(known) + 1))


def paired_differences(
    scores: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    groups: Sequence[str],
    labels: np.ndarray | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[dict]:
    """For each pair of columns of scores [N, M] the mean of the first minus that of the second, with interval and p.

    With labels [N] the means are those over classes (balanced accuracy). Images that any column leaves unknown are left
    out of all. Two that agree on every image get an interval of no width and p = 1. Raises DataError.
    """
    scores = np.asarray(scores, np.float64)
    check_groups(len(scores), groups)
    known = np.isfinite(scores).all(axis=1)
    if not known.any():
        return [{"value": None, "low": None, "high": None, "n": 0, "groups": 0, "p": None} for _ in pairs]
    kept = np.asarray(groups).astype(str)[known]
    of_class = None if labels is None else np.asarray(labels)[known]
    value, resampled = resampled_means(scores[known], kept, of_class, n_bootstrap, seed)
    total = len(set(kept))
    found = []
    for first, second in pairs:
        difference, gaps = float(value[first] - value[second]), resampled[:, first] - resampled[:, second]
        low, high = interval(difference, gaps, total, None)
        found.append(
            {
                "value": difference,
                "low": plain(low),
                "high": plain(high),
                "n": len(kept),
                "groups": total,
                # A single group tells nothing of the spread between groups.
                "p": bootstrap_p(gaps) if total > 1 else None,
            }
        )
    return found


def paired_difference(
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    groups: Sequence[str],
    labels: np.ndarray | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict:
    """`paired_differences` of two: the mean of scores `[N]` of a minus that of b. Raises DataError."""
    scores = np.column_stack([np.asarray(scores_a, np.float64), np.asarray(scores_b, np.float64)])
    return paired_differences(scores, [(0, 1)], groups, labels, n_bootstrap, seed)[0]


def plainest(
    scores: np.ndarray,
    groups: Sequence[str],
    labels: np.ndarray | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[int, list[dict]]:
    """The first column of scores `[N, M]` that the best one is not above beyond the 95 % interval; and the best's
    difference from each, as of `paired_differences`.

    Columns go from the plainest to the least plain. With one group, or none known, that is the first. Raises DataError.
    """
    columns = range(np.shape(scores)[1])
    pairs = [(one, other) for one in columns for other in columns]
    found = paired_differences(scores, pairs, groups, labels, n_bootstrap, seed)
    rows = [found[start : start + len(columns)] for start in range(0, len(found), len(columns))]
    above_first = [-np.inf if row[0]["value"] is None else row[0]["value"] for row in rows]
    gaps = rows[int(np.argmax(above_first))]
    return next(column for column in columns if gaps[column]["low"] is None or gaps[column]["low"] <= 0), gaps


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for being so many (Holm 1979, Scand. J. Stat. 6:65-70), in their order; unknown ones stay so.

    The k-th smallest of m is multiplied by m - k + 1; none becomes smaller than one before it, or larger than 1.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for place, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - place)))
        adjusted[index] = highest
    return adjusted
