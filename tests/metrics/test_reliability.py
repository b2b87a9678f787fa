"""The expected calibration error's interval on simulated data, and the reliability plot against plain loops."""

import numpy as np
import pytest

from medssl.metrics.bootstrap import group_draws, resample
from medssl.metrics.classification import classification_metrics
from medssl.metrics.reliability import bin_gaps, confidence_bins, expected_calibration_error, reliability_bins


def simulate(rng, images, gap):
    """Confidences and what was right, in a model whose accuracy lies `gap` below its confidence everywhere."""
    confidence = rng.uniform(0.5, 1.0, images)
    return confidence, (rng.random(images) < confidence - gap).astype(float)


@pytest.mark.parametrize("images", [25, 60, 400])
@pytest.mark.parametrize("gap", [0.0, 0.05, 0.2])
def test_the_interval_holds_its_value_always_and_the_truth_as_often_as_it_says(images, gap):
    rng = np.random.default_rng(images)
    held, rounds = 0, 100
    for seed in range(rounds):
        confidence, correct = simulate(rng, images, gap)
        found = expected_calibration_error(confidence, correct, np.arange(images).astype(str), 200, seed)
        assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
        held += found["low"] <= gap <= found["high"]
    assert held / rounds >= 0.9


def test_the_interval_holds_a_value_that_lies_below_all_of_its_resamples():
    """The case that was reported: 0.054 [0.055, 0.189]."""
    confidence = np.repeat([0.55, 0.65, 0.75, 0.85, 0.95], 8)
    # As many right in each bin as its confidence says, as nearly as may be.
    correct = (np.tile(np.arange(8), 5) < np.round(8 * confidence)).astype(float)
    groups = np.arange(40).astype(str)
    value, resampled = resample(groups, lambda w: np.abs(bin_gaps(w, confidence, correct)).sum(1)[:, None], 500, 0)
    assert np.percentile(resampled, 2.5) > value[0]
    found = expected_calibration_error(confidence, correct, groups, 500, 0)
    assert found["value"] == pytest.approx(value[0]) and found["low"] == 0
    assert found["high"] == pytest.approx(np.percentile(resampled, 97.5))


def test_the_low_end_equals_literal_resampling():
    rng = np.random.default_rng(0)
    confidence, correct = simulate(rng, 90, 0.3)
    numbers = np.arange(90) // 3

    def gaps(rows):
        return np.array([(correct - confidence)[rows][confidence_bins(confidence[rows]) == b].sum() for b in range(10)])

    whole, off = gaps(np.arange(90)) / 90, []
    for counts in group_draws(30, 80, np.random.default_rng(4)):
        rows = np.concatenate([np.tile(np.flatnonzero(numbers == group), count) for group, count in enumerate(counts)])
        off.append(np.abs(gaps(rows) / len(rows) - whole).sum())
    found = expected_calibration_error(confidence, correct, np.char.zfill(numbers.astype(str), 2), 80, 4)
    assert found["low"] == pytest.approx(np.abs(whole).sum() - np.percentile(off, 97.5)) and found["low"] > 0


def test_one_group_tells_nothing():
    found = expected_calibration_error(np.full(5, 0.9), np.ones(5), np.array(["only"] * 5))
    assert (found["low"], found["high"]) == (None, None) and found["value"] == pytest.approx(0.1)


def test_the_bins_equal_plain_loops():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 300)
    labels, groups = rng.integers(0, 3, 300), rng.integers(0, 90, 300).astype(str)
    confidence, correct = probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels).astype(float)
    rows = reliability_bins(confidence, correct, groups, 20)
    assert sum(row["n"] for row in rows) == 300
    for row in rows:
        own = [i for i in range(300) if row["from"] < confidence[i] <= row["to"]]
        assert row["n"] == len(own) and row["groups"] == len({groups[i] for i in own})
        assert row["confidence"] == pytest.approx(np.mean(confidence[own]))
        assert row["accuracy"] == pytest.approx(np.mean(correct[own]))
        assert row["low"] <= row["accuracy"] <= row["high"]
    found = classification_metrics(probabilities, labels, groups, ["a", "b", "c"], n_bootstrap=20)
    assert found["reliability"] == rows
    gap = sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / 300
    assert found["ece"]["value"] == pytest.approx(gap)
