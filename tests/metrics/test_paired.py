"""Paired differences on planted and simulated data, their p-values, and Holm against a plain version."""

import numpy as np
import pytest

from medssl.errors import DataError
from medssl.metrics.bootstrap import group_draws, number_groups
from medssl.metrics.paired import bootstrap_p, holm, paired_difference, paired_differences, plainest

GROUPS = [str(number // 3) for number in range(300)]
LABELS = np.arange(300) % 4


def answers(rate, images=300, seed=0):
    return (np.random.default_rng(seed).random(images) < rate).astype(float)


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_backbone_does_not_differ_from_itself(labels):
    found = paired_difference(answers(0.7), answers(0.7), GROUPS, labels)
    assert found == {"value": 0, "low": 0, "high": 0, "n": 300, "groups": 100, "p": 1}


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_planted_gain_is_found(labels):
    worse = answers(0.7)
    better = worse.copy()
    better[np.flatnonzero(worse == 0)[::4]] = 1
    gain = paired_difference(better, worse, GROUPS, labels)
    assert 0 < gain["low"] < gain["value"] < gain["high"] and gain["p"] == pytest.approx(2 / 1001)
    if labels is None:
        assert gain["value"] == pytest.approx(better.mean() - worse.mean())
    else:
        recalls = [[part[LABELS == label].mean() for label in range(4)] for part in (better, worse)]
        assert gain["value"] == pytest.approx(np.mean(recalls[0]) - np.mean(recalls[1]))
    loss = paired_difference(worse, better, GROUPS, labels)
    assert (loss["value"], loss["low"], loss["high"]) == pytest.approx((-gain["value"], -gain["high"], -gain["low"]))
    assert loss["p"] == gain["p"]


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_difference_equals_literal_resampling_of_the_same_groups(labels):
    first, second, numbers = answers(0.8), answers(0.7, seed=1), number_groups(GROUPS)
    gaps = []
    for counts in group_draws(100, 80, np.random.default_rng(4)):
        drawn = [group for group, count in enumerate(counts) for _ in range(count)]
        rows = np.concatenate([np.flatnonzero(numbers == group) for group in drawn])
        if labels is None:
            gaps.append(first[rows].mean() - second[rows].mean())
        else:
            of_class = [rows[labels[rows] == label] for label in range(4)]
            gaps.append(np.mean([first[part].mean() - second[part].mean() for part in of_class]))
    found = paired_difference(first, second, GROUPS, labels, n_bootstrap=80, seed=4)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.percentile(gaps, (2.5, 97.5))))
    smaller = min(sum(gap <= 0 for gap in gaps), sum(gap >= 0 for gap in gaps))
    assert found["p"] == pytest.approx(min(1, 2 * (1 + smaller) / 81))


def test_many_columns_at_once_are_each_pair_alone():
    columns = [answers(rate, seed=seed) for seed, rate in enumerate((0.6, 0.7, 0.8))]
    pairs = [(0, 1), (2, 0), (1, 2)]
    together = paired_differences(np.column_stack(columns), pairs, GROUPS, LABELS, 60, 3)
    assert together == [paired_difference(columns[a], columns[b], GROUPS, LABELS, 60, 3) for a, b in pairs]


def test_unknown_scores_are_left_out_and_no_score_is_no_figure():
    scores = answers(0.7)
    scores[:30] = np.nan
    found = paired_difference(answers(0.9, seed=1), scores, GROUPS)
    assert (found["n"], found["groups"]) == (270, 90)
    none = paired_difference(np.full(300, np.nan), scores, GROUPS)
    assert none == {"value": None, "low": None, "high": None, "n": 0, "groups": 0, "p": None}
    one = paired_difference(answers(0.9, seed=1), answers(0.7), ["a"] * 300)
    assert (one["low"], one["high"], one["p"]) == (None, None, None)
    with pytest.raises(DataError, match="2 groups do not fit 300"):
        paired_difference(scores, scores, ["a", "b"])


def simulate(random, gain=0.0, groups=50, size=6):
    """Two classifiers on grouped images: a group's difficulty is shared by its images and by both."""
    ease = random.beta(3, 1.5, groups).repeat(size)
    rates = ease, np.clip(ease + gain, 0, 1)
    return [(random.random(groups * size) < rate).astype(float) for rate in rates], np.arange(groups).repeat(size)


def test_intervals_cover_and_p_rejects_at_about_their_nominal_rates():
    random, rounds = np.random.default_rng(0), 400
    covered = rejected = 0
    for seed in range(rounds):
        (first, second), groups = simulate(random)
        found = paired_difference(first, second, groups.astype(str), n_bootstrap=400, seed=seed)
        covered += found["low"] <= 0 <= found["high"]
        rejected += found["p"] < 0.05
    assert 0.91 <= covered / rounds <= 0.98
    assert 0.02 <= rejected / rounds <= 0.09


def plain_holm(p_values):
    """By the definition: the k-th smallest times m - k + 1, then no smaller than those before."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    found = list(p_values)
    for k, index in enumerate(order):
        found[index] = max(min(1, (len(p_values) - j) * p_values[order[j]]) for j in range(k + 1))
    return found


def test_holm_is_the_plain_version_and_leaves_unknown_ones_alone():
    random = np.random.default_rng(0)
    for count in (1, 2, 7, 40):
        values = random.random(count) ** 3
        assert holm(values.tolist()) == pytest.approx(plain_holm(values.tolist()))
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.02, None, 0.5]) == [None, 0.04, None, 0.5]
    assert holm([]) == [] and holm([None]) == [None]


def test_holm_keeps_the_family_wise_error_where_nothing_differs():
    random = np.random.default_rng(1)
    any_raw = any_adjusted = 0
    for _ in range(500):
        values = random.random(20).tolist()
        any_raw += min(values) < 0.05
        any_adjusted += min(holm(values)) < 0.05
    assert any_raw / 500 > 0.5 and any_adjusted / 500 < 0.08


def test_p_counts_ties_on_both_sides():
    assert bootstrap_p(np.zeros(99)) == 1
    assert bootstrap_p(np.full(99, 0.1)) == pytest.approx(0.02)
    assert bootstrap_p(np.array([np.nan, np.nan])) is None
    assert bootstrap_p(np.array([-1.0] * 10 + [1.0] * 89)) == pytest.approx(0.22)


def test_the_plainest_is_the_first_that_the_best_is_not_above_beyond_the_interval():
    scores = np.column_stack([answers(0.5), answers(0.8, seed=1), answers(0.82, seed=2)])
    chosen, gaps = plainest(scores, GROUPS)
    assert chosen == 1 and gaps[0]["low"] > 0 >= gaps[1]["low"] and gaps[2]["value"] == 0
    assert gaps[0] == paired_difference(scores[:, 2], scores[:, 0], GROUPS)
    assert plainest(scores[:, ::-1], GROUPS)[0] == 0


def test_one_group_tells_nothing_apart():
    scores = np.column_stack([np.zeros(20), np.ones(20)])
    assert plainest(scores, ["one"] * 20)[0] == 0
    assert plainest(np.full((4, 3), np.nan), list("abcd"))[0] == 0
