"""The split by image: the same sizes, groups torn, and leakage that shows."""

import numpy as np

from medssl.data.labelled import Labelled
from medssl.study.image_level import image_level_run
from medssl.study.probes import score_heads


def leaky(groups=60, size=5, seed=0):
    """Embeddings that tell the group and nothing else; labels belong to groups."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(groups, 16)).repeat(size, axis=0) + 0.05 * random.normal(size=(groups * size, 16))
    labels = (np.arange(groups) % 3).repeat(size)
    names = np.array([f"g{number}" for number in range(groups)]).repeat(size)
    splits = np.array(["train", "train", "train", "val", "test"] * 12).repeat(size)
    return vectors.astype(np.float32), labels, names, splits


def test_sizes_are_those_of_the_split_by_group_and_groups_are_torn():
    vectors, labels, groups, splits = leaky()
    run = image_level_run(vectors, labels, groups, splits, 3, 7)
    assert len(run.rows) == (splits == "test").sum() and run.train_images == (splits == "train").sum()
    for label in range(3):
        assert (labels[run.rows] == label).sum() == ((labels == label) & (splits == "test")).sum()
    assert run.train_groups > len(set(groups[splits == "train"]))
    assert (run.protocol, run.share, run.draw) == ("images", 1.0, 7)
    again = image_level_run(vectors, labels, groups, splits, 3, 7)
    np.testing.assert_array_equal(run.rows, again.rows)
    assert set(run.rows) != set(image_level_run(vectors, labels, groups, splits, 3, 8).rows)


def test_leakage_is_seen_in_every_head():
    vectors, labels, groups, splits = leaky()
    sides = [splits == name for name in ("train", "val", "test")]
    honest = score_heads(*(Labelled(vectors[rows], labels[rows], groups[rows]) for rows in sides), 3)
    flattered = image_level_run(vectors, labels, groups, splits, 3, 0).outcomes
    for strict, loose in zip(honest, flattered, strict=True):
        assert (strict.head, strict.metrics) == (loose.head, loose.metrics)
        if strict.head != "centroid":
            assert strict.scores.mean() < 0.6 and loose.scores.mean() > strict.scores.mean() + 0.2, strict.head
