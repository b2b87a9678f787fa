"""The cases of a bundle: what is refused in them, by the column's name, and what their hash covers."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from medssl.bundle.cases import cases_fingerprint, check_cases, split_cases, without_paths
from medssl.errors import BundleError

LABELS = ["few", "many"]
FEATURES = {
    "id": Value("string"),
    "image": Image(),
    "label": ClassLabel(names=LABELS),
    "split": Value("string"),
    "group_id": Value("string"),
    "source": Value("string"),
    "embedding": List(Value("float32"), length=2),
}
ROWS = {
    "id": ["1", "2", "3"],
    "image": [{"bytes": b"x", "path": None}, {"bytes": b"y", "path": "nowhere.png"}, None],
    "label": [0, 1, 1],
    "split": ["train", "train", "test"],
    "group_id": ["a", "a", "b"],
    "source": ["here", None, "here"],
    "embedding": [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]],
}


def cases(features: dict | None = None, **columns) -> Dataset:
    return Dataset.from_dict({**ROWS, **columns}, Features({**FEATURES, **(features or {})}))


def test_what_fits_passes():
    check_cases(cases(), LABELS, 2, "spots")


@pytest.mark.parametrize("column", list(FEATURES))
def test_a_missing_column_is_named(column):
    with pytest.raises(BundleError, match=f"lack the columns {column}"):
        check_cases(cases().remove_columns(column), LABELS, 2, "spots")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: cases({"id": Value("int64")}, id=[1, 2, 3]), "column id .* not text"),
        (lambda: cases({"source": Value("float32")}, source=[1.0, 2.0, 3.0]), "column source .* not text"),
        (lambda: cases(group_id=["a", None, "b"]), "column group_id .* empty places"),
        (lambda: cases(split=["train", "train", "holdout"]), "splits holdout; allowed: train, val, test"),
        (lambda: cases({"image": Value("string")}, image=["a", "b", "c"]), "column image .* no pictures"),
        (lambda: cases({"label": Value("int64")}), "column label .* not classes"),
        (lambda: cases({"label": ClassLabel(names=["few", "none"])}), "cases' labels are"),
        (lambda: cases(label=[0, 1, None]), "no label"),
        (lambda: cases({"embedding": List(Value("float32"), length=3)}, embedding=[[0.0] * 3] * 3), "the cases hold 3"),
        (lambda: cases({"embedding": Value("float32")}, embedding=[0.0] * 3), "the cases hold"),
        (lambda: cases(embedding=[[0.0, np.nan], [1.0, 0.0], [0.5, 0.5]]), "not all finite"),
        (lambda: cases(embedding=[[0.0, np.inf], [1.0, 0.0], [0.5, 0.5]]), "not all finite"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_column(change, words):
    with pytest.raises(BundleError, match=words):
        check_cases(change(), LABELS, 2, "spots")


@pytest.mark.parametrize(
    "change",
    [
        {"id": ["1", "2", "4"]},
        {"image": [{"bytes": b"z", "path": None}, {"bytes": b"y", "path": None}, None]},
        {"label": [1, 1, 1]},
        {"split": ["train", "val", "test"]},
        {"group_id": ["a", "c", "b"]},
        {"source": ["here", "there", "here"]},
        {"embedding": [[0.0, 1.0], [1.0, 1e-7], [0.5, 0.5]]},
    ],
)
def test_the_hash_covers_every_column(change):
    assert cases_fingerprint(split_cases(cases(**change))) != cases_fingerprint(split_cases(cases()))


def test_the_hash_knows_no_paths():
    other = cases(image=[{"bytes": b"x", "path": "/a"}, {"bytes": b"y", "path": None}, None])
    assert cases_fingerprint(split_cases(other)) == cases_fingerprint(split_cases(cases()))


def test_paths_are_dropped_and_pictures_stay():
    image = [*ROWS["image"][:2], {"bytes": None, "path": "/etc/passwd"}]
    table = without_paths(cases(image=image).data.table)
    assert table.column("image").to_pylist() == [{"bytes": b"x", "path": None}, {"bytes": b"y", "path": None}, None]
    assert table.schema == cases().data.table.schema and Dataset(table).features["image"] == Image()


def test_thumbnails_can_be_left_out():
    parts = split_cases(cases(), images=False)
    assert [name for name in parts] == ["train", "test"] and parts["train"].column_names == list(FEATURES)
    assert all(row["image"] is None for part in parts.values() for row in part)
