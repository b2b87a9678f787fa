"""Retrieval metrics against plain loops, and their intervals against literal resampling."""

import json

import numpy as np
import pytest

from medssl.errors import DataError
from medssl.metrics.retrieval import retrieval_metrics
from tests.metrics.test_classification import literal_interval


def plain_retrieval(queries, labels, groups, cases, case_labels, case_groups):
    """P@1, P@5, AP@10 of every query by loops; None where no case of the label is left."""
    found = []
    for query, label, group in zip(queries, labels, groups, strict=True):
        ranked = []
        for case, case_label, case_group in zip(cases, case_labels, case_groups, strict=True):
            if case_group != group:
                cosine = query @ case / np.sqrt((query @ query) * (case @ case))
                ranked.append((cosine, case_label == label))
        ranked.sort(key=lambda pair: -pair[0])
        right = [same for _, same in ranked]
        relevant = sum(right)
        if not relevant:
            found.append(None)
            continue
        precision = sum(sum(right[: rank + 1]) / (rank + 1) for rank in range(min(10, len(right))) if right[rank])
        found.append((float(right[0]), sum(right[:5]) / min(5, len(right)), precision / min(10, relevant)))
    return found


@pytest.mark.parametrize(("queries", "cases"), [(70, 90), (600, 40), (20, 4)])
def test_retrieval_equals_plain_loops(queries, cases):
    random = np.random.default_rng(cases)
    vectors, stored = random.normal(size=(queries, 6)) + 0.5, random.normal(size=(cases, 6)) + 0.5
    labels, case_labels = random.integers(0, 4, queries), random.integers(0, 3, cases)
    groups, case_groups = random.integers(0, 12, queries), random.integers(0, 12, cases)
    plain = plain_retrieval(vectors, labels, groups, stored, case_labels, case_groups)
    usable = [row for row, scores in enumerate(plain) if scores]
    assert 0 < len(usable) < queries
    scores = np.array([plain[row] for row in usable])
    found = retrieval_metrics(vectors, labels, groups, stored, case_labels, case_groups, n_bootstrap=40, seed=2)
    names = ("precision_at_1", "precision_at_5", "map_at_10")
    np.testing.assert_allclose([found[name]["value"] for name in names], scores.mean(axis=0))
    low, high = literal_interval(groups[usable], 40, 2, lambda rows: scores[rows].mean(axis=0))
    np.testing.assert_allclose([found[name]["low"] for name in names], low)
    np.testing.assert_allclose([found[name]["high"] for name in names], high)
    assert {found[name]["n"] for name in names} == {len(usable)}


def test_the_own_group_is_never_a_hit():
    vectors = np.eye(4)[[0, 0, 1, 1]] + 0.01
    labels, groups = np.array([0, 0, 1, 1]), ["a", "a", "b", "b"]
    found = retrieval_metrics(vectors, labels, groups, vectors, labels, groups)
    assert found["precision_at_1"]["value"] is None and found["precision_at_1"]["n"] == 0
    apart = retrieval_metrics(vectors, labels, ["a", "c", "b", "d"], vectors, labels, ["a", "c", "b", "d"])
    assert apart["precision_at_1"]["value"] == apart["map_at_10"]["value"] == 1
    assert apart["precision_at_1"]["low"] < 0.5
    json.dumps(found, allow_nan=False)


def test_embeddings_that_do_not_fit():
    with pytest.raises(DataError, match="do not fit"):
        retrieval_metrics(np.ones((2, 3)), [0, 1], ["a", "b"], np.ones((2, 4)), [0, 1], ["c", "d"])
    with pytest.raises(DataError, match="all zero"):
        retrieval_metrics(np.zeros((2, 3)), [0, 1], ["a", "b"], np.ones((2, 3)), [0, 1], ["c", "d"])
