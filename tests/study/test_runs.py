"""Runs come back from their file as they were; their fingerprint holds what decides them; the map is PCA."""

import dataclasses

import numpy as np
import pytest
from sklearn.decomposition import PCA

from medssl.backbones.backbone import Backbone
from medssl.data.load import load_data
from medssl.data.split import split_data
from medssl.study.probes import Outcome, score_heads
from medssl.study.runs import Measured, Run, map_embeddings, runs_fingerprint
from tests.study.test_probes import make_part, parts


def measured():
    train, validation, test = parts(1.5)
    outcomes = score_heads(train, validation, test, 3)
    unknown = dataclasses.replace(outcomes[-1], scores=np.where(np.arange(60) < 5, np.nan, outcomes[-1].scores))
    rows = np.arange(60) + 7
    return Measured(
        [
            Run("groups", 1.0, 0, 60, 30, rows, [*outcomes[:-1], unknown]),
            Run("groups", 0.1, 4, 6, 3, rows, outcomes[:3]),
            Run("images", 1.0, 4, 60, 40, rows[::-1].copy(), outcomes),
        ],
        map_embeddings(test.embeddings, 0),
        1.5,
        2.5,
    )


def assert_same(first, second):
    assert dataclasses.fields(first) == dataclasses.fields(second)
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype or field.name == "rows"
            np.testing.assert_array_equal(one, other)
        elif dataclasses.is_dataclass(one):
            assert_same(one, other)
        elif isinstance(one, list):
            assert len(one) == len(other)
            for pair in zip(one, other, strict=True):
                assert_same(*pair)
        else:
            assert one == other


def test_what_is_saved_is_found_again(tmp_path):
    kept = measured()
    kept.save(tmp_path / "part.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["part.parquet"]
    assert_same(kept, Measured.load(tmp_path / "part.parquet"))


def test_a_file_that_is_missing_or_broken_is_measured_again(tmp_path):
    assert Measured.load(tmp_path / "none.parquet") is None
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and not more")
    assert Measured.load(tmp_path / "broken.parquet") is None


def test_an_outcome_is_found_by_head_and_metric():
    run = Run("groups", 1.0, 0, 1, 1, np.arange(2), [Outcome("knn", ("accuracy",), np.zeros(2))])
    assert run.outcome("knn", "accuracy") is run.outcomes[0]
    assert run.outcome("knn", "map_at_10") is None and run.outcome("linear", "accuracy") is None


def test_the_fingerprint_holds_everything_that_decides(tiny_backbone, tiny_data):
    backbone = Backbone.from_pretrained(tiny_backbone)
    dataset = split_data(load_data(tiny_data["shapes"]))
    given = {"dataset": dataset, "backbone": backbone, "pooling": "cls", "shares": (0.1, 1.0), "draws": 2, "seed": 0}
    first = runs_fingerprint(**given)
    assert first == runs_fingerprint(**given)
    groups = ["other", *dataset["group_id"][1:]]
    changed = dataset.remove_columns("group_id").add_column("group_id", groups)
    others = [
        {"dataset": dataset.select(range(50))},
        {"dataset": changed},
        {"dataset": load_data(tiny_data["tints"])},
        {"backbone": Backbone.from_pretrained(tiny_backbone, precision="fp32")},
        {"pooling": "mean"},
        {"shares": (0.2, 1.0)},
        {"draws": 3},
        {"seed": 1},
    ]
    found = {runs_fingerprint(**{**given, **other}) for other in others}
    if backbone.precision == "fp32":
        found.add("the same precision")
        found.discard(first)
    assert len(found) == len(others) and first not in found


def test_the_map_is_the_pca_of_unit_embeddings_up_to_its_sign():
    part = make_part(200, 1.0, 4, dimension=12)
    found = map_embeddings(part.embeddings, 0)
    unit = part.embeddings.astype(float) / np.linalg.norm(part.embeddings, axis=1, keepdims=True)
    reference = PCA(2, svd_solver="full").fit(unit)
    np.testing.assert_allclose(np.abs(found.points), np.abs(reference.transform(unit)), atol=1e-6)
    assert found.explained == pytest.approx(reference.explained_variance_ratio_, abs=1e-6)
    np.testing.assert_array_equal(found.rows, np.arange(200))


def test_a_large_data_set_is_mapped_by_some_of_its_images():
    vectors = np.random.default_rng(0).normal(size=(1700, 4)).astype(np.float32)
    found = map_embeddings(vectors, 3)
    assert len(found.rows) == len(found.points) == 1500 and len(set(found.rows)) == 1500
    np.testing.assert_array_equal(found.points, map_embeddings(vectors, 3).points)
    assert set(found.rows) != set(map_embeddings(vectors, 4).rows)
