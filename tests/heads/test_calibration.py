import numpy as np
import pytest
from scipy.special import softmax

from medssl.data.labelled import Labelled
from medssl.heads.calibration import calibrate, fit_temperature, nearest_similarity, smoothed_loss
from tests.heads.test_fit_linear import part


def test_temperature_beats_every_other_on_a_grid():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    logits = 8 * (np.eye(3)[labels] + rng.normal(size=(300, 3)))
    temperature = fit_temperature(logits, labels)
    best = smoothed_loss(logits / temperature, labels)
    assert temperature > 2
    assert all(best <= smoothed_loss(logits / t, labels) + 1e-6 for t in np.geomspace(0.1, 15, 60))


def test_a_perfect_validation_does_not_give_infinite_confidence():
    labels = np.arange(100) % 4
    temperature = fit_temperature(np.eye(4)[labels], labels)
    confidence = softmax(np.eye(4)[labels] / temperature, axis=1).max()
    assert 0.98 < confidence < 0.995


def test_the_smoothed_loss_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(7, 3)), rng.integers(0, 3, 7)
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        p = np.exp(row) / np.exp(row).sum()
        for index in range(3):
            total -= (1 - 1 / 9 if index == label else 1 / 18) * np.log(p[index])
    assert smoothed_loss(logits, labels) == pytest.approx(total / 7)


def test_nearest_similarity_equals_plain_loops_and_leaves_out_the_own_group():
    queries, cases = part(20, 3, 0), part(40, 3, 1)
    groups = cases.groups.copy()
    groups[:10] = queries.groups[0]
    cases = Labelled(cases.embeddings, cases.labels, groups)
    found = nearest_similarity(queries, cases, 5)
    for index, query in enumerate(queries.embeddings):
        cosines = [
            float(query @ case / np.linalg.norm(query) / np.linalg.norm(case))
            for case, group in zip(cases.embeddings, groups, strict=True)
            if group != queries.groups[index]
        ]
        np.testing.assert_allclose(found[index], np.mean(sorted(cosines)[-5:]), atol=1e-5)


def test_calibrate_sets_temperature_sets_and_familiarity():
    train, validation = part(120, 3, 0), part(60, 3, 1)
    rng = np.random.default_rng(0)
    logits = 6 * (np.eye(3)[validation.labels] + rng.normal(size=(60, 3)))
    temperature, thresholds = calibrate(logits, train, validation, ["x", "y", "z"])
    assert temperature == fit_temperature(logits, validation.labels)
    assert thresholds.adaptive.class_groups == {"x": 20, "y": 20, "z": 20}
    familiar = nearest_similarity(validation, train)
    assert np.mean(familiar >= thresholds.familiarity) == pytest.approx(0.95, abs=0.02)


def test_one_group_gives_no_familiarity_threshold():
    train, validation = part(30, 3, 0), part(20, 3, 1)
    one = np.array(["study"] * 30)
    logits = np.eye(3)[validation.labels]
    _, thresholds = calibrate(
        logits,
        Labelled(train.embeddings, train.labels, one),
        Labelled(validation.embeddings, validation.labels, one[:20]),
        "abc",
    )
    assert thresholds.familiarity is None and thresholds.familiar(0.5) is None
