"""Embeddings tell copies from a modality of look-alikes, in blocks, and count same-group pairs as a plain loop does."""

import tracemalloc

import numpy as np
import pytest
from datasets import ClassLabel, Dataset

from medssl.audit import neighbors as neighbors
from medssl.audit.neighbors import (
    alike_pairs,
    cosine_threshold,
    examine,
    image_level_split,
    nearest_elsewhere,
    same_group_share,
    vectors_of,
)
from medssl.backbones.embeddings import with_embeddings
from medssl.errors import DataError


def table(vectors, groups, splits=None, labels=None):
    """An embedded data set without any pictures."""
    count = len(vectors)
    columns = {
        "file_name": [f"{row}.png" for row in range(count)],
        "label": np.zeros(count, int) if labels is None else labels,
        "split": list(splits) if splits is not None else [""] * count,
        "group_id": [str(group) for group in groups],
    }
    data = Dataset.from_dict(columns).cast_column("label", ClassLabel(names=["a", "b"]))
    return with_embeddings(data, np.asarray(vectors, np.float32))


def look_alikes(count, seed=0, spread=0.1, dimension=32):
    """Embeddings of a modality in which all images look alike: cosines above 0.98."""
    rng = np.random.default_rng(seed)
    return 1 + spread * rng.normal(size=(count, dimension))


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def splits_of(count):
    return np.array([("train", "train", "train", "val", "test")[row % 5] for row in range(count)])


def test_look_alikes_are_not_flagged():
    vectors = look_alikes(300)
    nearest = nearest_elsewhere(unit(vectors), np.arange(300))
    assert nearest.min() > 0.98, "a fixed threshold would flag them all"
    found, findings = examine(table(vectors, range(300), splits_of(300)))
    assert findings == [] and found.alike == 0 and found.cosine_threshold > found.usual_cosine
    assert found.same_group["value"] == found.same_group_image_level["value"] == 0
    assert found.same_group["high"] > 0, "none of 60 images is no proof of none"


@pytest.mark.parametrize("where", ["another split", "another group", "both"])
def test_a_planted_copy_among_look_alikes(where):
    vectors, groups, splits = look_alikes(300), np.arange(300), splits_of(300)
    vectors[4] = vectors[0] + 0.01 * (vectors[1] - 1)
    groups[4] = 0 if where == "another split" else 4
    splits[4] = "train" if where == "another group" else "test"
    found, findings = examine(table(vectors, groups, splits))
    by_kind = {finding.kind: finding for finding in findings}
    alike = by_kind["alike in embedding"]
    assert (alike.severity, alike.count, alike.pairs[0].rows) == ("info", 1, [0, 4])
    assert alike.pairs[0].similarity > found.cosine_threshold and alike.pairs[0].measure == "cosine of embeddings"
    assert ("alike in embedding across splits" in by_kind) == (where != "another group") == found.alike_across_splits
    if where == "another split":
        retrieved = by_kind["same group retrieved"]
        assert (retrieved.severity, retrieved.count, retrieved.pairs[0].rows) == ("error", 1, [4, 0])
        assert found.same_group["value"] == pytest.approx(1 / (splits == "test").sum())


def test_images_of_one_group_in_one_split_are_no_finding():
    vectors = np.repeat(look_alikes(100), 3, axis=0) + 0.001 * np.random.default_rng(1).normal(size=(300, 32))
    found, findings = examine(table(vectors, np.arange(300) // 3, np.repeat(splits_of(100), 3)))
    assert found.alike == 0 and found.same_group["value"] == 0
    assert found.same_group_image_level["value"] > 0.6
    assert [finding.kind for finding in findings] == ["image-level split would leak"]
    _, leaking = examine(table(vectors, np.arange(300) // 3, splits_of(300)))
    assert {"same group retrieved", "alike in embedding across splits"} <= {finding.kind for finding in leaking}


def test_blocks_give_what_the_whole_matrix_gives(monkeypatch):
    rng = np.random.default_rng(0)
    vectors, groups, splits = unit(rng.normal(size=(97, 4))), rng.integers(0, 30, 97), splits_of(97)
    cosines = vectors @ vectors.T
    same = groups[:, None] == groups[None]
    for block in (1, 10, 97, 512):
        monkeypatch.setattr(neighbors, "BLOCK", block)
        np.testing.assert_allclose(
            nearest_elsewhere(vectors, groups), np.where(same, -np.inf, cosines).max(axis=1), atol=1e-6
        )
        expected = [
            (i, j)
            for i in range(97)
            for j in range(i + 1, 97)
            if cosines[i, j] >= 0.9 and (not same[i, j] or splits[i] != splits[j])
        ]
        assert [(one, two) for one, two, _ in alike_pairs(vectors, groups, splits, 0.9)] == expected
        train, test = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "test")
        hits = [groups[query] == groups[max(train, key=lambda case: cosines[query, case])] for query in test]
        share, pairs = same_group_share(vectors, groups, splits, 0)
        assert share["value"] == pytest.approx(np.mean(hits)) and len(pairs) == sum(hits)
        assert share["low"] <= share["value"] <= share["high"] and share["n"] == len(test)


def test_no_matrix_of_all_pairs_in_memory():
    count = 6000
    data = table(look_alikes(count, dimension=16), range(count), splits_of(count))
    tracemalloc.start()
    examine(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count * count * 4 / 2


def test_the_threshold_lies_below_what_chance_makes():
    rng = np.random.default_rng(0)
    distances = np.exp(rng.normal(-3, 0.35, 100_000))
    threshold = cosine_threshold(1 - distances)
    assert np.log(1 - threshold) == pytest.approx(-3 - 4 * 0.35, abs=0.05)
    assert (1 - distances >= threshold).sum() < 15
    assert cosine_threshold(np.full(100, 0.9)) > 0.95, "equally far neighbours are not copies of one another"
    assert cosine_threshold(1 - distances[:19]) is cosine_threshold(np.full(50, -np.inf)) is None
    assert cosine_threshold(np.ones(50)) is None, "embeddings that are all one tell nothing"


def test_image_level_split_keeps_counts_and_is_seeded():
    rng = np.random.default_rng(0)
    labels, splits = rng.integers(0, 2, 200), splits_of(200)
    drawn = image_level_split(labels, splits, 1)
    for label in (0, 1):
        assert sorted(drawn[labels == label]) == sorted(splits[labels == label])
    assert (drawn == image_level_split(labels, splits, 1)).all() and (drawn != splits).any()
    made = image_level_split(labels, np.full(200, ""), 1)
    assert [np.sum(made == name) for name in ("train", "val", "test")] == pytest.approx([120, 40, 40], abs=2)


def test_without_splits_only_the_random_one_is_measured():
    found, _ = examine(table(look_alikes(60), range(60)))
    assert found.same_group is None and found.same_group_image_level["n"] == 12
    assert examine(table(look_alikes(1), [0]))[0].same_group_image_level is None


def test_same_seed_same_answer():
    data = table(look_alikes(90), np.arange(90) // 3, splits_of(90))
    assert examine(data, 1) == examine(data, 1)


def test_embeddings_that_cannot_be_used():
    data = table(look_alikes(30), range(30))
    with pytest.raises(DataError, match="no column"):
        vectors_of(data.remove_columns("embedding"))
    for value in (0, np.nan):
        bad = look_alikes(30)
        bad[3] = value
        with pytest.raises(DataError, match="embed the data again"):
            vectors_of(table(bad, range(30)))
    ragged = data.remove_columns("embedding").add_column("embedding", [[1.0]] * 29 + [None])
    with pytest.raises(DataError, match="embed the data again"):
        vectors_of(ragged)
