"""The map of the cases: the same each time, neighbors together, old bundles without one."""

from __future__ import annotations

import numpy as np
import pytest

from medssl.library import case_map
from medssl.library.case_map import MAP_COLUMNS, drawn_rows, lay_out, place, with_map


@pytest.fixture(scope="module")
def groups():
    """Three tight groups of embeddings, and which group each belongs to."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(3, 16))
    kinds = np.arange(60) % 3
    return (centers[kinds] + random.normal(scale=0.15, size=(60, 16))).astype(np.float32), kinds


def test_neighbors_stay_neighbors_in_a_unit_frame(groups):
    vectors, kinds = groups
    points = lay_out(vectors)
    assert points.shape == (60, 2) and points.min() >= 0 and points.max() <= 1
    apart = np.linalg.norm(points[:, None] - points[None], axis=2) + np.eye(60) * 9
    assert (kinds[apart.argmin(axis=1)] == kinds).all()
    np.testing.assert_array_equal(points, lay_out(vectors))


def test_a_new_case_is_placed_by_its_nearest_neighbors(groups):
    vectors, kinds = groups
    points = lay_out(vectors)
    (own,) = place(vectors[:1], vectors, points)
    assert np.linalg.norm(own - points[0]) < 0.05
    weights = np.sort(
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ (vectors[0] / np.linalg.norm(vectors[0]))
    )
    plain = np.zeros(2)
    order = np.argsort(-(vectors @ vectors[0] / np.linalg.norm(vectors, axis=1)))[:5]
    shares = 1 / (1 - weights[::-1][:5] + 1e-3)
    for row, share in zip(order, shares / shares.sum(), strict=True):
        plain += share * points[row]
    np.testing.assert_allclose(own, plain, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7])
def test_few_cases_have_a_map_too(count):
    points = lay_out(np.random.default_rng(1).normal(size=(count, 8)))
    assert points.shape == (count, 2) and np.isfinite(points).all()


def test_only_searched_cases_are_drawn_and_not_too_many(tiny_bundles, monkeypatch):
    cases = tiny_bundles["shapes"].cases
    rows, points = drawn_rows(cases)
    splits = np.array(cases["split"][:])
    np.testing.assert_array_equal(rows, np.flatnonzero(splits == "train"))
    assert points.shape == (len(rows), 2)
    monkeypatch.setattr(case_map, "MOST_CASES", 10)
    fewer, _ = drawn_rows(with_map(cases, seed=3))
    assert len(fewer) == 10 and set(fewer) < set(rows)
    assert set(fewer) == set(drawn_rows(with_map(cases, seed=3))[0])


def test_a_bundle_without_a_map_loads(tiny_bundles):
    from medssl.bundle.bundle import Bundle

    bundle = tiny_bundles["shapes"]
    plain = bundle.cases.remove_columns(list(MAP_COLUMNS))
    old = Bundle(bundle.head, plain, bundle.backbone, name="shapes", space=bundle.space)
    assert len(drawn_rows(old.cases)[0]) == 0 and len(old.library) == len(bundle.library)
