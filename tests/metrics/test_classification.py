"""Metrics against scikit-learn and plain loops; intervals against literal resampling and simulated data."""

import json
import time

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    recall_score,
    roc_auc_score,
)

from medssl.errors import DataError
from medssl.metrics.bootstrap import group_draws, number_groups, resample
from medssl.metrics.classification import classification_metrics
from medssl.metrics.metric import METRICS, flagged_share, format_metrics
from medssl.metrics.retrieval import retrieval_metrics

NAMES = ["a", "b", "c", "d"]
POINT = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece", "nll", "conformal_coverage", "mean_set_size")


def make_predictions(images=400, classes=4, groups=150, seed=0, ties=False):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = 1.5 * np.eye(classes)[labels] + random.normal(size=(images, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if ties:
        probabilities = np.round(probabilities * 4) + 0.5
        probabilities /= probabilities.sum(1, keepdims=True)
    return probabilities, labels, [f"g{number}" for number in random.integers(0, groups, images)]


def plain_ece(probabilities, labels):
    total = 0.0
    for index in range(10):
        inside = [
            (max(row), float(np.argmax(row) == label))
            for row, label in zip(probabilities, labels, strict=True)
            if index / 10 < max(row) <= (index + 1) / 10
        ]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            total += len(inside) / len(labels) * abs(confidence - right)
    return total


def plain_metrics(probabilities, labels, sets):
    """Every classification metric, image by image or by scikit-learn."""
    predicted = probabilities.argmax(1)
    if probabilities.shape[1] == 2:
        auroc = roc_auc_score(labels, probabilities[:, 1])
    else:
        present = [c for c in range(probabilities.shape[1]) if 0 < (labels == c).sum() < len(labels)]
        auroc = np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in present])
    return {
        "accuracy": accuracy_score(labels, predicted),
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro"),
        "auroc": auroc,
        "ece": plain_ece(probabilities, labels),
        "nll": log_loss(labels, probabilities, labels=range(probabilities.shape[1])),
        "conformal_coverage": np.mean([row[label] for row, label in zip(sets, labels, strict=True)]),
        "mean_set_size": np.mean([sum(row) for row in sets]),
    }


@pytest.mark.parametrize(("classes", "ties"), [(2, False), (2, True), (4, False), (4, True), (7, False)])
def test_values_equal_scikit_learn(classes, ties):
    probabilities, labels, groups = make_predictions(classes=classes, ties=ties)
    sets = probabilities > 0.15
    names = [f"class {c}" for c in range(classes)]
    found = classification_metrics(probabilities, labels, groups, names, sets, n_bootstrap=20)
    expected = plain_metrics(probabilities, labels, sets)
    assert tuple(found)[:8] == POINT
    for name in POINT:
        assert found[name]["value"] == pytest.approx(expected[name], abs=1e-12), name
        assert (found[name]["n"], found[name]["groups"]) == (400, len(set(groups)))
    if classes > 2:
        assert found["auroc"]["value"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"))
    predicted = probabilities.argmax(1)
    recalls = [found["per_class_recall"][name]["value"] for name in names]
    np.testing.assert_allclose(recalls, recall_score(labels, predicted, average=None))
    matrix = found["confusion_matrix"]
    assert matrix["labels"] == names
    assert matrix["rows_true_columns_predicted"] == confusion_matrix(labels, predicted).tolist()
    json.dumps(found, allow_nan=False)


def test_without_prediction_sets_their_metrics_are_left_out():
    found = classification_metrics(*make_predictions(), NAMES, n_bootstrap=5)
    assert "conformal_coverage" not in found and "mean_set_size" not in found


def literal_interval(groups, n_bootstrap, seed, compute):
    """Percentiles of a metric over resamples in which the images of each drawn group are really repeated."""
    numbers = number_groups(groups)
    draws = group_draws(numbers.max() + 1, n_bootstrap, np.random.default_rng(seed))
    values = []
    for counts in draws:
        drawn = [group for group, count in enumerate(counts) for _ in range(count)]
        values.append(compute(np.concatenate([np.flatnonzero(numbers == group) for group in drawn])))
    return np.percentile(values, (2.5, 97.5), axis=0)


def test_intervals_equal_literal_resampling_of_the_same_draws():
    probabilities, labels, groups = make_predictions(images=150, groups=40, seed=3)
    sets = probabilities > 0.2

    def compute(rows):
        values = plain_metrics(probabilities[rows], labels[rows], sets[rows])
        return [values[name] for name in POINT]

    low, high = literal_interval(groups, 60, 5, compute)
    ece = POINT.index("ece")
    found = classification_metrics(probabilities, labels, groups, NAMES, sets, n_bootstrap=60, seed=5)
    # The low end of a calibration error is another thing: see test_reliability.
    low[ece] = found["ece"]["low"]
    np.testing.assert_allclose([found[name]["low"] for name in POINT], low, atol=1e-10)
    np.testing.assert_allclose([found[name]["high"] for name in POINT], high, atol=1e-10)


def test_resampling_in_blocks_is_the_same(monkeypatch):
    values = np.random.default_rng(0).normal(size=60)
    groups = [str(number // 3) for number in range(60)]

    def mean(weights):
        return (weights @ values / weights.sum(1))[:, None]

    whole = resample(groups, mean, 50, 1)
    monkeypatch.setattr("medssl.metrics.bootstrap.BLOCK", 60 * 7)
    blocks = resample(groups, mean, 50, 1)
    np.testing.assert_allclose(whole[1], blocks[1])
    assert whole[0] == pytest.approx(values.mean())


def test_same_seed_same_intervals_other_seed_others():
    data = make_predictions()
    first, again, other = (classification_metrics(*data, NAMES, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["accuracy"]["low"] != other["accuracy"]["low"] or first["nll"]["low"] != other["nll"]["low"]


def test_a_group_stays_together():
    # Ten images a group, all right or all wrong: the interval must be that of 40 groups, not of 400 images.
    right = np.arange(400) // 10 % 2 == 0
    by_group = flagged_share(right, [str(number // 10) for number in range(400)])
    by_image = flagged_share(right, [str(number) for number in range(400)])
    width = by_group["high"] - by_group["low"]
    assert width == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(40), rel=0.15)
    assert width > 2.5 * (by_image["high"] - by_image["low"])


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(0)
    held, rounds = 0, 300
    for number in range(rounds):
        rates = random.beta(6, 2, 60)  # each group has its own rate; their mean is 0.75
        flags = random.random((60, 5)) < rates[:, None]
        found = flagged_share(flags.ravel(), np.repeat(np.arange(60), 5), n_bootstrap=300, seed=number)
        held += found["low"] <= 0.75 <= found["high"]
    assert 0.90 <= held / rounds <= 0.98


@pytest.mark.parametrize("groups", [2, 10, 137])
def test_all_right_gets_the_exact_bound_on_groups_not_certainty(groups):
    names = [str(number // 3) for number in range(3 * groups)]
    right, wrong = flagged_share(np.ones(3 * groups, bool), names), flagged_share(np.zeros(3 * groups, bool), names)
    bound = beta.ppf(0.025, groups, 1)
    assert (right["value"], right["high"]) == (1, 1) and right["low"] == pytest.approx(bound)
    assert (wrong["value"], wrong["low"]) == (0, 0) and wrong["high"] == pytest.approx(1 - bound)


def test_a_perfect_head_is_not_certain_in_any_bounded_metric():
    labels = np.arange(120) % 4
    probabilities = np.eye(4)[labels] * 0.96 + 0.01
    groups = [str(number // 2) for number in range(120)]
    found = classification_metrics(probabilities, labels, groups, NAMES, probabilities > 0.5)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "conformal_coverage"):
        assert found[name]["value"] == found[name]["high"] == 1
        assert 0.8 < found[name]["low"] < 0.97, name
    # Means over classes know less than the plain share: each class has fewer groups.
    assert found["balanced_accuracy"]["low"] < found["accuracy"]["low"]
    assert all(metric["low"] < 0.95 for metric in found["per_class_recall"].values())


def test_one_group_tells_nothing():
    flags = flagged_share([True, False, True], ["only"] * 3)
    assert (flags["low"], flags["high"]) == (0, 1)
    probabilities, labels, _ = make_predictions()
    found = classification_metrics(probabilities, labels, ["only"] * 400, NAMES)
    assert found["nll"]["low"] is None and (found["auroc"]["low"], found["auroc"]["high"]) == (0, 1)


def test_a_class_that_does_not_occur():
    probabilities, labels, groups = make_predictions()
    keep = labels != 2
    found = classification_metrics(probabilities[keep], labels[keep], np.array(groups)[keep], NAMES)
    missing = found["per_class_recall"]["c"]
    assert (missing["value"], missing["low"], missing["n"], missing["groups"]) == (None, None, 0, 0)
    expected = plain_metrics(probabilities[keep], labels[keep], np.ones((keep.sum(), 4), bool))
    assert found["auroc"]["value"] == pytest.approx(expected["auroc"])
    assert found["macro_f1"]["value"] == pytest.approx(expected["macro_f1"])
    json.dumps(found, allow_nan=False)


def test_only_one_class_occurs():
    found = classification_metrics(np.full((6, 2), 0.5), np.zeros(6, int), list("abcdef"), ["no", "yes"])
    assert found["auroc"]["value"] is None and found["accuracy"]["value"] == 1


def test_a_class_in_few_groups_drops_out_of_some_resamples():
    probabilities, labels, groups = make_predictions(images=60, groups=12)
    labels[:] = labels % 3
    labels[0], groups[0] = 3, "rare"
    found = classification_metrics(probabilities, labels, groups, NAMES)
    assert all(np.isfinite([found[name]["low"], found[name]["high"]]).all() for name in POINT[:6])


def test_random_guesses_are_at_chance():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), 2000)
    labels = random.integers(0, 4, 2000)
    found = classification_metrics(probabilities, labels, np.arange(2000), NAMES)
    for name, chance in {"accuracy": 0.25, "balanced_accuracy": 0.25, "auroc": 0.5}.items():
        assert found[name]["low"] <= chance <= found[name]["high"]
    vectors = random.normal(size=(2000, 8))
    retrieved = retrieval_metrics(vectors, labels, np.arange(2000), vectors, labels, np.arange(2000))
    for name in ("precision_at_1", "precision_at_5"):
        assert retrieved[name]["low"] - 0.01 <= 0.25 <= retrieved[name]["high"] + 0.01


def test_every_metric_declares_its_direction_and_the_table_shows_it():
    probabilities, labels, groups = make_predictions()
    found = classification_metrics(probabilities, labels, groups, NAMES, probabilities > 0.2)
    found |= retrieval_metrics(probabilities, labels, groups, probabilities, labels, groups)
    for name, metric in found.items():
        if "value" in metric:
            assert metric["higher_is_better"] is METRICS[name].higher_is_better
            assert METRICS[name].description
    lines = format_metrics(found).splitlines()
    assert len(lines) == 2 + len(POINT) + 3 + 4
    assert all(line.count("|") == 5 for line in lines)
    value, low, high = (found["ece"][key] for key in ("value", "low", "high"))
    assert f"| ece | {value:.3f} | {low:.3f} to {high:.3f} | lower |" in lines
    assert "| recall, d |" in lines[-1]


def test_an_undefined_metric_is_a_dash_in_the_table():
    found = classification_metrics(np.full((6, 2), 0.5), np.zeros(6, int), list("abcdef"), ["no", "yes"])
    assert "| auroc | - | - to - | higher |" in format_metrics(found)


def test_it_is_fast_enough():
    probabilities, labels, groups = make_predictions()
    vectors = np.random.default_rng(0).normal(size=(400, 384))
    started = time.process_time()
    classification_metrics(probabilities, labels, groups, NAMES, probabilities > 0.2, n_bootstrap=1000)
    retrieval_metrics(vectors, labels, groups, vectors, labels, groups, n_bootstrap=1000)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": np.zeros((0, 2)), "labels": np.zeros(0, int), "groups": []}, "no images"),
        ({"probabilities": np.full((3, 3), 1 / 3)}, "do not fit"),
        ({"groups": ["a", "b"]}, "2 groups"),
        ({"labels": np.array([0, 1, 2])}, "from 0 to 1"),
        ({"labels": np.array([0, -1, 1])}, "from 0 to 1"),
        ({"labels": np.array([0.0, 1.0, 1.0])}, "whole numbers"),
        ({"probabilities": np.full((3, 2), np.nan)}, "finite"),
        ({"probabilities": np.array([[2.0, -1.0]] * 3)}, "not negative"),
        ({"probabilities": np.ones((3, 2))}, "add up"),
        ({"prediction_sets": np.ones((3, 3), bool)}, "Prediction sets"),
    ],
)
def test_input_that_does_not_fit(change, message):
    given = {"probabilities": np.full((3, 2), 0.5), "labels": np.array([0, 1, 1]), "groups": list("abc")}
    with pytest.raises(DataError, match=message):
        classification_metrics(**{**given, **change}, label_names=["no", "yes"])
