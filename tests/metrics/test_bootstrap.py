"""Means over groups and over classes against scikit-learn and plain loops."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from medssl.metrics.bootstrap import bounded_mean, class_means, mean_statistic


def test_balanced_accuracy_with_its_interval():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 3, 300), rng.integers(0, 60, 300)
    guess = np.where(rng.random(300) < 0.7, labels, rng.integers(0, 3, 300))
    value, low, high = bounded_mean(guess == labels, groups, labels)
    assert value == pytest.approx(balanced_accuracy_score(labels, guess)) and low < value < high < low + 0.2
    _, low, high = bounded_mean(labels == labels, groups, labels)
    assert low < 1 == high


def test_a_plain_mean_without_labels():
    values, groups = np.array([1.0, 0.0, 1.0, 1.0]), np.array(["a", "a", "b", "c"])
    value, low, high = bounded_mean(values, groups, n_bootstrap=200)
    assert value == 0.75 and 0.4 <= low < 0.75 < high <= 1


def test_class_means_equal_plain_loops_and_leave_out_what_a_resample_lacks():
    rng = np.random.default_rng(1)
    weights, values, labels = rng.integers(0, 2, (50, 6)).astype(float), rng.random(6), np.array([0, 0, 1, 1, 2, 2])
    found, mean = class_means(weights, values, labels), mean_statistic(values[:, None], labels)(weights)
    for row, means, whole in zip(weights, found, mean[:, 0], strict=True):
        plain = [
            np.average(values[labels == c], weights=row[labels == c]) if row[labels == c].any() else np.nan
            for c in range(3)
        ]
        np.testing.assert_allclose(means, plain)
        known = [value for value in plain if np.isfinite(value)]
        assert whole == pytest.approx(np.mean(known)) if known else np.isnan(whole)
