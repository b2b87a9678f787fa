"""Splits: whole groups, exact copies together, every class on every side, also with thousands of classes."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image

from medssl.data.load import load_data
from medssl.data.rows import SPLITS
from medssl.data.split import split_data, tied_groups
from medssl.errors import DataError


def rows(labels, groups, classes):
    names = [f"c{index:04d}" for index in range(classes)]
    features = Features({"label": ClassLabel(names=names), "group_id": Value("string"), "split": Value("string")})
    columns = {"label": list(labels), "group_id": [str(group) for group in groups], "split": [""] * len(labels)}
    return Dataset.from_dict(columns, features=features)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=some.lists(some.integers(1, 6), min_size=20, max_size=60),
    classes=some.integers(2, 4),
    seed=some.integers(0, 1000),
)
def test_a_split_never_divides_a_group_and_is_seeded(sizes, classes, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = groups % classes
    data = rows(labels, groups, classes)
    # At least five groups a class: never refused.
    splits = np.array(split_data(data, seed)["split"][:])
    assert np.array_equal(splits, np.array(split_data(data, seed)["split"][:]))
    for group in range(len(sizes)):
        assert len(set(splits[groups == group])) == 1
    for split in SPLITS:
        assert set(labels[splits == split]) == set(range(classes))


def test_exact_copies_stay_on_one_side(tmp_path):
    random = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(30):
            image = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            image.save(tmp_path / label / f"{index}.png")
            image.save(tmp_path / label / f"copy of {index}.png")
    dataset = split_data(load_data(tmp_path))
    sides = {}
    for name, split in zip(dataset["file_name"], dataset["split"], strict=True):
        sides.setdefault(name.replace("copy of ", ""), set()).add(split)
    assert all(len(found) == 1 for found in sides.values()) and len(sides) == 60
    assert set(dataset["split"]) == set(SPLITS)
    assert len(set(dataset["group_id"])) == 120, "the groups themselves stay as they were given"


def test_copies_tie_chains_of_groups_together():
    groups = np.array(["a", "b", "b", "c", "d", "e"])
    tied = tied_groups(groups, ["1", "1", "2", "2", "", ""])
    assert len({*tied[:4]}) == 1 and len({*tied[4:]}) == 2


def test_thousands_of_classes():
    classes = 2000
    labels = np.repeat(np.arange(classes), 10)
    groups = np.arange(len(labels)) // 2
    splits = np.array(split_data(rows(labels, groups, classes))["split"][:])
    for split, low, high in (("train", 5, 7), ("val", 1, 3), ("test", 1, 3)):
        counts = np.bincount(labels[splits == split], minlength=classes)
        assert counts.min() >= low and counts.max() <= high
    assert all(len(set(splits[start : start + 2])) == 1 for start in range(0, len(labels), 2))


def test_too_small_classes_are_said_as_such():
    labels = np.arange(40) % 20
    with pytest.raises(DataError, match="Every class has too few images.*largest has 2, and 5 are needed"):
        split_data(rows(labels, np.arange(40), 20))
