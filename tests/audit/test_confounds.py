"""Cramer's V is Bergsma's, counts groups once, and is not told where chance would do."""

import numpy as np
import pytest
from scipy.stats.contingency import association as uncorrected

from medssl.audit.confounds import associate, confound_findings, cramers_v, frame_kinds
from medssl.audit.shortcuts import Shortcut


def plain_v(table):
    """Bergsma (2013), sum by sum."""
    n = sum(map(sum, table))
    rows, columns = len(table), len(table[0])
    chi = 0.0
    for i in range(rows):
        for j in range(columns):
            expected = sum(table[i]) * sum(row[j] for row in table) / n
            chi += (table[i][j] - expected) ** 2 / expected
    phi = max(0, chi / n - (rows - 1) * (columns - 1) / (n - 1))
    r, k = rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)
    return (phi / (min(r, k) - 1)) ** 0.5


@pytest.mark.parametrize("seed", range(20))
def test_cramers_v_is_the_plain_one(seed):
    rng = np.random.default_rng(seed)
    table = rng.integers(1, 40, (int(rng.integers(2, 6)), int(rng.integers(2, 5))))
    assert cramers_v(table) == pytest.approx(plain_v(table.tolist()))
    assert cramers_v(table) <= uncorrected(table, method="cramer")
    assert cramers_v(table * 10_000) == pytest.approx(uncorrected(table, method="cramer"), abs=1e-3)


def test_cramers_v_at_its_ends():
    assert cramers_v(np.diag([10, 10, 10])) == pytest.approx(1)
    assert cramers_v(np.array([[10, 0], [0, 10], [0, 0]])) == pytest.approx(1)
    assert cramers_v(np.array([[20, 20], [30, 30]])) == 0
    assert cramers_v(np.array([[20, 20]])) == cramers_v(np.array([[1, 0], [0, 0]])) == cramers_v(np.zeros((2, 2))) == 0
    assert cramers_v(np.eye(6)) == 0, "a source for each image"


def test_the_correction_takes_chance_away():
    """Uncorrected, ten sources and four labels without any bond look associated with few images."""
    rng = np.random.default_rng(0)
    tables = []
    for _ in range(200):
        table = np.zeros((10, 4))
        np.add.at(table, (rng.integers(0, 10, 80), rng.integers(0, 4, 80)), 1)
        tables.append(table)
    assert np.mean([cramers_v(table) for table in tables]) < 0.1
    assert np.mean([uncorrected(table.astype(int), method="cramer") for table in tables]) > 0.25


def test_a_group_counts_once():
    labels, groups = np.repeat([0, 1], 300), np.repeat(np.arange(60), 10).astype(str)
    sources = np.where(np.repeat(np.arange(60) < 35, 10), "north", "south")
    found = associate("source", sources, labels, groups, ["a", "b"])
    assert found.counts == {"north": {"a": 30, "b": 5}, "south": {"a": 0, "b": 25}} and found.groups == 60
    assert found.v == pytest.approx(plain_v([[30, 5], [0, 25]])) == pytest.approx(found.v_by_class["a"])


def test_rare_sources_share_a_row():
    labels = np.array([0, 1] * 30)
    sources = np.array(["north"] * 28 + ["south"] * 28 + ["w", "x", "y", "z"])
    found = associate("source", sources, labels, np.arange(60), ["a", "b"])
    assert list(found.counts) == ["north", "south", "other"] and found.counts["other"] == {"a": 2, "b": 2}
    assert associate("source", np.arange(60), labels, np.arange(60), ["a", "b"]) is None
    assert associate("source", np.repeat("north", 60), labels, np.arange(60), ["a", "b"]) is None
    assert associate("source", sources[:0], labels[:0], sources[:0], ["a", "b"]) is None


@pytest.mark.parametrize(
    ("table", "severity"),
    [
        ([[40, 10], [10, 40]], "warning"),
        ([[33, 17], [17, 33]], None),
        ([[66, 34], [34, 66]], "info"),
        ([[3, 0], [0, 3]], None),
    ],
)
def test_severity_by_strength_and_chance(table, severity):
    """V 0.6; 0.3 of few groups; 0.31 of enough; and three images of each label, where V says nothing."""
    counts = np.array(table)
    source, label = np.repeat(np.indices(counts.shape).reshape(2, -1), counts.ravel(), axis=1)
    found = associate("source", source, label, np.arange(len(label)), ["a", "b"])
    findings = confound_findings([], [found] if found else [])
    assert [item.severity for item in findings] == ([severity] if severity else [])


def test_frames_are_sorted_without_labels():
    rng = np.random.default_rng(0)
    frames = np.concatenate([rng.normal(0, 0.02, (30, 64)), rng.normal(1, 0.02, (30, 64))])
    kinds = frame_kinds(frames, 0)
    assert not set(kinds[:30]) & set(kinds[30:]) and (kinds == frame_kinds(frames, 0)).all()
    assert len(frame_kinds(np.ones((30, 64)), 0)) == len(frame_kinds(np.empty((0,)), 0)) == 0
    assert len(set(frame_kinds(np.repeat([[0.0], [1.0]], 20, axis=0), 0))) == 2


def test_a_perfect_source_is_told_with_classes():
    item = Shortcut("source", 1.0, 0.5, {"a": 1.0, "b": 1.0}, 0.9, 1.0)
    (found,) = confound_findings([item], [])
    assert found.kind == "source confound" and "balanced accuracy 1.00 [0.90, 1.00] (chance 0.50)" in found.message
