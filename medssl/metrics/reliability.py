"""How well confidence agrees with accuracy: the expected calibration error and what a reliability plot shows."""

from __future__ import annotations

import numpy as np

from medssl.metrics.bootstrap import LEVEL, mean_statistic, ratio, resample
from medssl.metrics.metric import ECE_BINS, metric, metric_json


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """The bin `[N]` of each confidence `[N]`: 0 for (0, 1/10], up to 9 for (9/10, 1]."""
    return np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)


def bin_gaps(weights: np.ndarray, confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Each bin's share of the images times its accuracy less its confidence, `[R, 10]` under weights `[R, N]`."""
    gaps = np.eye(ECE_BINS)[confidence_bins(confidence)] * (correct - confidence)[:, None]
    return ratio(weights @ gaps, weights.sum(axis=1, keepdims=True))


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, groups: np.ndarray, n_bootstrap: int = 1000, seed: int = 0
) -> dict:
    """The expected calibration error (Guo et al. 2017, arXiv 1706.04599) of confidences `[N]`, as a metric.

    Noise only adds to an absolute gap, and a resample has the noise of few images twice: percentiles of its error lie
    above the truth, and often above the value. What is resampled is therefore each bin's signed gap. By the triangle
    inequality the error is off by at most the sum over bins of what the gaps are off, of which resamples show how large
    it gets: the low end is the value less the 97.5th percentile of that sum. The high end is the 97.5th percentile of
    the resampled error. The interval always holds the value, and is wider than needed where the gaps are large. A
    single group tells nothing: its interval is unknown.
    """
    value, resampled = resample(groups, lambda w: bin_gaps(w, confidence, correct), n_bootstrap, seed)
    error, total = float(np.abs(value).sum()), len(set(groups))
    low = high = np.nan
    if total > 1 and len(resampled) > 1:
        tail = 100 * (1 + LEVEL) / 2
        off = np.percentile(np.abs(resampled - value).sum(axis=1), tail)
        low = max(0.0, error - off)
        high = min(1.0, max(error, np.percentile(np.abs(resampled).sum(axis=1), tail)))
    return metric_json("ece", error, (low, high), len(groups), total)


def reliability_bins(
    confidence: np.ndarray, correct: np.ndarray, groups: np.ndarray, n_bootstrap: int = 1000, seed: int = 0
) -> list[dict]:
    """A reliability plot as data: of each bin of confidence that holds images its `from`, `to`, mean `confidence`,
    `accuracy` with `low` and `high` (95 % over groups), `n` images and `groups`. All arrays are `[N]`.
    """
    bins = confidence_bins(confidence)
    rows = []
    for index in np.unique(bins).tolist():
        own, hits = groups[bins == index], correct[bins == index, None]
        value, resampled = resample(own, mean_statistic(hits), n_bootstrap, seed)
        total = len(set(own))
        found = metric("accuracy", value[0], resampled[:, 0], len(own), [total], total)
        rows.append(
            {
                "from": index / ECE_BINS,
                "to": (index + 1) / ECE_BINS,
                "confidence": float(confidence[bins == index].mean()),
                "accuracy": found["value"],
                **{key: found[key] for key in ("low", "high", "n", "groups")},
            }
        )
    return rows
