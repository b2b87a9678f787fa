"""Sub-samples of training groups: whole, seeded, nested, every class; and the runs on them."""

import numpy as np
import pytest

from medssl.data.labelled import Labelled
from medssl.errors import DataError
from medssl.study.label_efficiency import SHARES, label_efficiency, sub_sample, taking_order
from medssl.study.probes import score_classifiers
from tests.study.test_probes import make_part


def people(seed=0, count=120):
    """Labels and groups of uneven classes; some groups hold two labels."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 9, count)
    groups = np.array([f"g{number}" for number in range(count)]).repeat(sizes)
    labels = random.choice(4, count, p=(0.6, 0.25, 0.12, 0.03)).repeat(sizes)
    odd = random.random(len(labels)) < 0.05
    return np.where(odd, random.integers(0, 4, len(labels)), labels), groups


@pytest.mark.parametrize("seed", range(5))
def test_samples_are_whole_groups_of_every_class_and_nested(seed):
    labels, groups = people(seed)
    assert SHARES == (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
    before = np.zeros(len(labels), bool)
    for share in SHARES:
        keep = sub_sample(labels, groups, share, seed)
        assert not set(groups[keep]) & set(groups[~keep])
        assert set(labels[keep]) == set(labels)
        assert (keep >= before).all()
        taken, total = len(set(groups[keep])), len(set(groups))
        assert round(share * total) <= taken <= max(1, round(share * total)) + 3
        before = keep
    assert before.all()


def test_a_seed_decides_the_sample_and_the_order_of_rows_does_not():
    labels, groups = people()
    first = sub_sample(labels, groups, 0.1, 3)
    np.testing.assert_array_equal(first, sub_sample(labels, groups, 0.1, 3))
    assert any((first != sub_sample(labels, groups, 0.1, seed)).any() for seed in (4, 5))
    order = np.random.default_rng(0).permutation(len(labels))
    np.testing.assert_array_equal(sub_sample(labels[order], groups[order], 0.1, 3), first[order])


def test_every_beginning_holds_the_classes_in_about_their_shares():
    labels = np.repeat([0, 1], [300, 100])
    groups = np.array([f"g{number}" for number in range(400)])
    order = taking_order(labels, groups, 0)
    of = dict(zip(groups, labels, strict=True))
    for taken in (40, 100, 200):
        rare = sum(of[name] for name in order[:taken])
        assert rare == pytest.approx(taken / 4, abs=2)
    assert sorted(order) == sorted(groups)


@pytest.mark.parametrize("share", [0, -0.1, 1.01])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(DataError, match="above 0, at most 1"):
        sub_sample(*people(), share, 0)


def test_trials_are_the_heads_on_the_sub_samples():
    train, validation, test = (make_part(90, 1.5, seed) for seed in (1, 2, 3))
    rows = np.arange(90) + 500
    runs = label_efficiency(train, validation, test, rows, 3, (0.1, 0.5, 1.0), range(2, 4))
    assert [(run.share, run.draw) for run in runs] == [(0.1, 2), (0.1, 3), (0.5, 2), (0.5, 3)]
    for run in runs:
        keep = sub_sample(train.labels, train.groups, run.share, run.draw)
        assert (run.train_images, run.train_groups) == (keep.sum(), len(set(train.groups[keep])))
        part = Labelled(train.embeddings[keep], train.labels[keep], train.groups[keep])
        for expected, found in zip(score_classifiers(part, validation, test, 3), run.outcomes, strict=True):
            np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(run.rows, rows)
    assert [outcome.head for outcome in runs[0].outcomes] == ["linear", "knn", "centroid"]


def test_more_labels_help_where_there_is_something_to_learn():
    train, validation, test = (make_part(300, 2.0, seed, dimension=20) for seed in (1, 2, 3))
    runs = label_efficiency(train, validation, test, np.arange(300), 3, (0.02, 0.5), range(5))
    means = {
        share: np.mean([run.outcomes[0].scores.mean() for run in runs if run.share == share]) for share in (0.02, 0.5)
    }
    assert means[0.5] > means[0.02] + 0.1
