"""Rows from runs: equal to classification_metrics, to scikit-learn and to plain means; intervals cover."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, roc_auc_score

from medssl.metrics.classification import classification_metrics
from medssl.metrics.paired import holm, paired_difference
from medssl.study.probes import ACCURACIES, Outcome
from medssl.study.results import LEAKAGE_GAP, Row
from medssl.study.rows import TaskLabels, adjust, backbone_rows, difference_rows, score_figure, summarize
from medssl.study.runs import Run

NAMES = ["a", "b", "c", "d"]
TEST = np.arange(100, 400)


def task_labels(seed=0):
    random = np.random.default_rng(seed)
    groups = np.array([f"g{number // 3}" for number in range(500)])
    return TaskLabels(random.choice(4, 500, p=(0.5, 0.2, 0.2, 0.1)), groups, NAMES)


def classifier(head, about, rows, skill, seed, setting=""):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(len(rows), 4)) + skill * np.eye(4)[about.labels[rows]]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    scores = (predicted == about.labels[rows]).astype(float)
    sets = (probabilities > 0.3) | (np.arange(4) == predicted[:, None])
    return Outcome(head, ACCURACIES, scores, setting, predicted, probabilities, sets)


def make_trials(skill=1.5, seed=0, gain=1.0):
    about = task_labels()
    heads = ("linear", "knn", "centroid")
    ranks = np.random.default_rng(seed).random(len(TEST))
    ranks[:20] = np.nan
    full = [classifier(head, about, TEST, skill, seed + i, "C=1") for i, head in enumerate(heads)]
    runs = [Run("groups", 1.0, 0, 100, 50, TEST, [*full, Outcome("retrieval", ("precision_at_5",), ranks)])]
    for draw in range(3):
        some = [classifier(head, about, TEST, skill / 2, 50 + seed + draw, f"C={draw}") for head in heads]
        runs.append(Run("groups", 0.1, draw, 10 + draw, 5, TEST, some))
        rows = np.sort(np.random.default_rng(draw).permutation(500)[:300])
        loose = [classifier(head, about, rows, skill + gain, 90 + seed + draw, "k=1") for head in heads]
        runs.append(Run("images", 1.0, draw, 100, 90, rows, loose))
    return runs


def rows_of(runs, n_bootstrap=60):
    base = Row("task", "model", "", "", None, None, None, 0, 0, 5, kind="supervised")
    return backbone_rows(base, runs, task_labels(), n_bootstrap)


def find(rows, head, metric, protocol="groups", share=1.0):
    found = [row for row in rows if (row.head, row.metric, row.protocol, row.share) == (head, metric, protocol, share)]
    assert len(found) == 1
    return found[0]


def test_figures_at_full_data_are_those_of_scikit_learn_and_of_classification_metrics():
    runs, about = make_trials(), task_labels()
    rows, linear = rows_of(runs), runs[0].outcomes[0]
    labels, groups = about.labels[TEST], about.groups[TEST]
    expected = {
        "accuracy": accuracy_score(labels, linear.predicted),
        "balanced_accuracy": balanced_accuracy_score(labels, linear.predicted),
        "macro_f1": f1_score(labels, linear.predicted, average="macro"),
        "auroc": roc_auc_score(labels, linear.probabilities, multi_class="ovr"),
        "nll": log_loss(labels, linear.probabilities),
        "mean_set_size": linear.sets.sum(axis=1).mean(),
        "conformal_coverage": linear.sets[np.arange(300), labels].mean(),
    }
    for name, value in expected.items():
        assert find(rows, "linear", name).value == pytest.approx(value), name
    whole = classification_metrics(linear.probabilities, labels, groups, NAMES, linear.sets, 60, 5)
    for name, figure in whole.items():
        if "value" in figure:
            row = find(rows, "linear", name)
            found = {key: getattr(row, key) for key in ("value", "low", "high", "n", "groups")}
            assert found == pytest.approx({key: figure[key] for key in found}), name
    for head in (1, 2):
        outcome = runs[0].outcomes[head]
        assert find(rows, outcome.head, "balanced_accuracy").value == pytest.approx(
            balanced_accuracy_score(labels, outcome.predicted)
        )
    retrieval = find(rows, "retrieval", "precision_at_5")
    assert (retrieval.n, retrieval.value) == (280, pytest.approx(np.nanmean(runs[0].outcomes[3].scores)))


def test_a_share_is_the_mean_of_its_draws_with_its_spread():
    runs, about = make_trials(), task_labels()
    rows = rows_of(runs)
    draws = [run for run in runs if run.share == 0.1]
    for name, plain in (("accuracy", accuracy_score), ("balanced_accuracy", balanced_accuracy_score)):
        values = [plain(about.labels[TEST], run.outcomes[0].predicted) for run in draws]
        row = find(rows, "linear", name, share=0.1)
        assert row.value == pytest.approx(np.mean(values)) and row.draws == 3
        assert (row.draw_sd, row.draw_low, row.draw_high) == pytest.approx(
            (np.std(values, ddof=1), min(values), max(values))
        )
        assert row.low < row.value < row.high and (row.n, row.train_images) == (300, 11)
    assert find(rows, "linear", "accuracy", share=0.1).setting == "C=0 x1, C=1 x1, C=2 x1"
    assert find(rows, "linear", "accuracy").draw_sd is None
    assert summarize(["k=1", "k=1"]) == "k=1" and summarize([""]) == ""


def test_the_split_by_image_is_pooled_over_draws_and_its_rise_is_the_leakage_gap():
    runs, about = make_trials(gain=2.0), task_labels()
    rows = rows_of(runs, 200)
    loose = [run for run in runs if run.protocol == "images"]
    values = [accuracy_score(about.labels[run.rows], run.outcomes[1].predicted) for run in loose]
    found, strict = find(rows, "knn", "accuracy", "images"), find(rows, "knn", "accuracy")
    assert found.value == pytest.approx(np.mean(values))
    assert found.n == len(set(np.concatenate([run.rows for run in loose])))
    gap = find(rows, "knn", "accuracy", LEAKAGE_GAP)
    assert gap.value == pytest.approx(found.value - strict.value) and 0 < gap.low < gap.value < gap.high
    # Two independent errors add as squares.
    widths = [row.high - row.low for row in (found, strict, gap)]
    assert widths[2] == pytest.approx(np.hypot(widths[0], widths[1]), rel=0.35)
    assert not [row for row in rows if row.protocol == LEAKAGE_GAP and row.head == "retrieval"]


def test_differences_are_paired_ones_at_every_share_and_adjusted_in_families():
    runs = {"a": make_trials(), "b": make_trials(1.0, seed=7), "c": make_trials(0.5, seed=9)}
    about = task_labels()
    rows = difference_rows("task", runs, [("a", "b"), ("a", "c")], {"a": "self-supervised"}, about, 30, 2)
    assert len(rows) == 2 * (3 * 2 + 1) + 2 * 3
    first = rows[0]
    expected = paired_difference(
        runs["a"][0].outcomes[0].scores, runs["b"][0].outcomes[0].scores, about.groups[TEST], None, 600, 2
    )
    assert (first.value, first.low, first.high, first.p) == pytest.approx(
        tuple(expected[key] for key in ("value", "low", "high", "p"))
    )
    assert (first.backbone, first.reference, first.kind) == ("a", "b", "self-supervised")
    few = next(row for row in rows if row.share == 0.1)
    means = [np.mean([run.outcomes[0].scores.mean() for run in runs[name] if run.share == 0.1]) for name in "ab"]
    assert few.value == pytest.approx(means[0] - means[1])
    adjusted = adjust(rows)
    for metric, share, count in (("accuracy", 1.0, 6), ("accuracy", 0.1, 6), ("precision_at_5", 1.0, 2)):
        family = [row for row in adjusted if (row.metric, row.share) == (metric, share)]
        assert len(family) == count and {row.comparisons for row in family} == {count}
        assert [row.p_holm for row in family] == holm([row.p for row in family])


def test_scores_that_are_all_unknown_are_no_figure():
    about = task_labels()
    figure, _ = score_figure("precision_at_5", np.full(300, np.nan), about.labels[TEST], about.groups[TEST])
    assert (figure["value"], figure["n"]) == (None, 0)


def test_the_bootstrap_interval_covers_at_about_its_nominal_rate():
    random, rounds, hits = np.random.default_rng(0), 400, {"accuracy": 0, "balanced_accuracy": 0}
    groups = np.arange(60).repeat(5).astype(str)
    labels = (np.arange(60) % 3).repeat(5)
    for seed in range(rounds):
        # A group's images are right together; the mean of Beta(4, 2) is 2/3 in every class.
        scores = (random.random(300) < random.beta(4, 2, 60).repeat(5)).astype(float)
        for name in hits:
            figure, _ = score_figure(name, scores, labels, groups, 400, seed)
            hits[name] += figure["low"] <= 2 / 3 <= figure["high"]
    for name, count in hits.items():
        assert 0.91 <= count / rounds <= 0.98, name


def test_random_labels_give_chance():
    about = task_labels()
    rows = [row for row in rows_of(make_trials(0.0), 200) if row.head == "linear" and row.share == 1.0]
    assert find(rows, "linear", "balanced_accuracy").low <= 0.25 <= find(rows, "linear", "balanced_accuracy").high
    assert find(rows, "linear", "auroc").low <= 0.5 <= find(rows, "linear", "auroc").high
    assert len(about.labels) == 500
