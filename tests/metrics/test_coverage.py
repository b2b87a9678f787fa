"""Coverage by confidence, class and set size against plain loops."""

import json

import numpy as np
import pytest

from medssl.metrics.classification import classification_metrics
from medssl.metrics.coverage import COVERAGE_HEADER, coverage_metrics, coverage_rows, format_coverage

NAMES = ["a", "b", "c", "absent"]


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 200)
    labels, groups = rng.integers(0, 3, 200), rng.integers(0, 40, 200).astype(str)
    return probabilities, labels, groups, probabilities > 0.2


def check(row, rows, data):
    """A coverage row against loops over the images it is of."""
    _, labels, groups, sets = data
    hits = [bool(sets[i, labels[i]]) for i in rows]
    names = sorted({groups[i] for i in rows})
    own = [np.mean([hit for hit, i in zip(hits, rows, strict=True) if groups[i] == name]) for name in names]
    assert (row["n"], row["groups"]) == (len(rows), len(names))
    assert row["coverage"] == pytest.approx(np.mean(hits)) and row["group_coverage"] == pytest.approx(np.mean(own))
    assert row["mean_set_size"] == pytest.approx(np.mean([sets[i].sum() for i in rows]))
    assert row["low"] <= row["coverage"] <= row["high"]


def test_every_row_equals_plain_loops(measured):
    probabilities, labels, groups, sets = measured
    found = coverage_metrics(probabilities, labels, groups, NAMES, sets, n_bootstrap=50)
    confidence = probabilities.max(axis=1)
    order = sorted(range(200), key=lambda i: confidence[i])
    for row, rows in zip(found["by_confidence"], (order[:67], order[67:134], order[134:]), strict=True):
        check(row, rows, measured)
        assert (row["from"], row["to"]) == (confidence[rows[0]], confidence[rows[-1]])
    for index, row in enumerate(found["by_class"][:3]):
        check(row, np.flatnonzero(labels == index).tolist(), measured)
    assert found["by_class"][3]["n"] == 0 and found["by_class"][3]["coverage"] is None
    for row in found["by_set_size"]:
        check(row, np.flatnonzero(sets.sum(axis=1) == int(row["name"].split()[0])).tolist(), measured)
    assert sum(row["n"] for row in found["by_set_size"]) == 200


def test_metrics_hold_the_coverage_and_the_table_shows_it(measured):
    probabilities, labels, groups, sets = measured
    found = classification_metrics(probabilities, labels, groups, NAMES, sets, n_bootstrap=50)
    assert found["coverage"] == coverage_metrics(probabilities, labels, groups, NAMES, sets, n_bootstrap=50)
    json.dumps(found, allow_nan=False)
    rows = coverage_rows(found)
    assert len(rows) == 3 + 4 + len(found["coverage"]["by_set_size"])
    assert all(len(row) == len(COVERAGE_HEADER) for row in rows)
    table = format_coverage(found).splitlines()
    assert len(table) == len(rows) + 2 and all(line.count("|") == len(COVERAGE_HEADER) + 1 for line in table)
    assert rows[0][0].startswith("least confident third (0.") and rows[6] == ("absent", "0", "0", "-", "-", "-")


def test_without_sets_there_is_no_table(measured):
    found = classification_metrics(*measured[:3], NAMES, n_bootstrap=5)
    assert coverage_rows(found) == [] and format_coverage(found) == ""
