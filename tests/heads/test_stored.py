"""config.json of a head: each field of a wrong type or missing is refused by file and field."""

import json

import pytest
import torch

from medssl.errors import BundleError
from medssl.heads.config import HeadConfig, Thresholds
from medssl.heads.head import ClassificationHead
from medssl.heads.prediction_sets import AdaptiveSets
from medssl.images.preprocess import Preprocess

ADAPTIVE = AdaptiveSets([0.5], [0.9, 0.95], [12, 14], {"few": 9, "many": 17})


@pytest.fixture
def folder(tmp_path):
    config = HeadConfig(
        labels=["few", "many"],
        embedding_dim=4,
        backbone={"id": "small", "revision": "1", "dimension": 4},
        pooling="cls",
        preprocess=Preprocess(),
        thresholds=Thresholds(adaptive=ADAPTIVE, familiarity=0.5),
        fitted_on={"seed": 3},
        versions={"torch": "2.13"},
    )
    head = ClassificationHead(config)
    for parameter in head.parameters():
        parameter.copy_(torch.ones_like(parameter))
    head.save_pretrained(tmp_path)
    return tmp_path


def change(folder, dotted, value=None, drop=False):
    """Write config.json with another value in one place, or without it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    *outer, last = dotted.split(".")
    inner = config
    for key in outer:
        inner = inner[key]
    if drop:
        del inner[last]
    else:
        inner[last] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("dotted", "value"),
    [
        ("labels", "few"),
        ("labels", ["few", 3]),
        ("embedding_dim", "4"),
        ("embedding_dim", 0),
        ("embedding_dim", 4.5),
        ("backbone", "small"),
        ("backbone.id", 3),
        ("backbone.revision", ["1"]),
        ("backbone.dimension", -1),
        ("pooling", 3),
        ("preprocess", []),
        ("preprocess.size", ["a", 3]),
        ("preprocess.size", [10**9, 10**9]),
        ("preprocess.fit", 1),
        ("preprocess.mean", ["x"]),
        ("preprocess.interpolation", None),
        ("temperature", "hot"),
        ("temperature", True),
        ("thresholds", 3),
        ("thresholds.conformal_level", 1.5),
        ("thresholds.familiarity", "high"),
        ("thresholds.familiarity_neighbors", 0),
        ("thresholds.adaptive", []),
        ("thresholds.adaptive.edges", ["x"]),
        ("thresholds.adaptive.probabilities", 3),
        ("thresholds.adaptive.groups", [-1]),
        ("thresholds.adaptive.class_groups", {"few": "x"}),
        ("thresholds.adaptive.minimum_mass", 0),
        ("fitted_on", []),
        ("task", "lung"),
        ("versions", {"torch": 2}),
    ],
)
def test_a_field_of_a_wrong_type_is_refused_by_its_name(folder, dotted, value):
    change(folder, dotted, value)
    with pytest.raises(BundleError, match="config") as refused:
        ClassificationHead.from_pretrained(folder)
    said = str(refused.value)
    assert dotted in said and str(folder) in said and "\n" not in said


@pytest.mark.parametrize(
    "dotted",
    ["labels", "embedding_dim", "backbone", "pooling", "preprocess"]
    + ["backbone.id", "backbone.revision", "backbone.dimension", "thresholds.adaptive.edges"]
    + ["thresholds.adaptive.probabilities", "thresholds.adaptive.groups", "thresholds.adaptive.class_groups"],
)
def test_a_missing_field_is_refused_by_its_name(folder, dotted):
    change(folder, dotted, drop=True)
    with pytest.raises(BundleError, match="config") as refused:
        ClassificationHead.from_pretrained(folder)
    assert dotted.rsplit(".", 1)[-1] in str(refused.value) and str(folder) in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 100_000])
def test_a_file_that_is_no_object_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(BundleError, match="config.json"):
        ClassificationHead.from_pretrained(folder)


@pytest.mark.parametrize("schema", [3, "2", None, [], True])
def test_a_schema_that_is_not_known_is_refused(folder, schema):
    change(folder, "schema_version", schema)
    with pytest.raises(BundleError, match="schema_version"):
        ClassificationHead.from_pretrained(folder)
