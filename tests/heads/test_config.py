import json

import pytest

from medssl.errors import BundleError
from medssl.heads.config import HeadConfig, Thresholds
from medssl.heads.patch import PatchHeadConfig
from medssl.images.preprocess import Preprocess

BASE = {
    "labels": ["a", "b"],
    "embedding_dim": 4,
    "backbone": {"id": "x", "revision": "1", "dimension": 4},
    "pooling": "cls",
    "preprocess": Preprocess(),
}


@pytest.mark.parametrize(
    "config",
    [
        HeadConfig(**BASE),
        HeadConfig(**BASE, temperature=2.5, thresholds=Thresholds(familiarity=0.5), fitted_on={"seed": 1}),
        PatchHeadConfig(**BASE, share=0.1, layer=3, task={"name": "x"}),
        PatchHeadConfig(**BASE, share=1),
        HeadConfig(**{**BASE, "pooling": "cls9+cls10+cls11+cls+mean"}, case_space="whitened"),
    ],
)
def test_a_config_comes_back_from_json_as_it_was(config):
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_of_an_earlier_version_is_read():
    old = HeadConfig(**BASE).to_dict() | {
        "schema_version": 1,
        "thresholds": {"conformal_level": 0.9, "conformal_probability": 0.2, "familiarity_neighbours": 7},
        "published": {"cases": {}},
    }
    found = HeadConfig.from_dict(old)
    assert found.thresholds == Thresholds(conformal_probability=0.2, familiarity_neighbors=7)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (HeadConfig, {"labels": None}, "lacks labels"),
        (HeadConfig, {"kind": "patch"}, "'patch'.*'linear'"),
        (HeadConfig, {"thresholds": {"x": 1}}, "no threshold x.*familiarity"),
        (HeadConfig, {"pooling": "cls+max"}, "Unknown pooling 'cls\\+max'"),
        (HeadConfig, {"pooling": "cls0"}, "Unknown pooling 'cls0'"),
        (HeadConfig, {"case_space": "round"}, "no space 'round'"),
        (HeadConfig, {"case_space": 3}, "case_space"),
        (PatchHeadConfig, {"kind": "patch"}, "lacks share"),
        (PatchHeadConfig, {"kind": "patch", "share": 2}, "share is 2"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(kind, changes, message):
    with pytest.raises(BundleError, match=message):
        kind.from_dict({**HeadConfig(**BASE).to_dict(), **changes})


def test_an_unknown_familiarity_threshold_calls_no_image_anything():
    assert Thresholds().familiar(0.99) is None
    assert Thresholds(familiarity=0.5).familiar(0.5) is True
    assert Thresholds(familiarity=0.5).familiar(0.4) is False


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
def test_a_config_that_knows_no_space_compares_plain_embeddings(pooling):
    old = HeadConfig(**{**BASE, "pooling": pooling}).to_dict()
    del old["case_space"]
    found = HeadConfig.from_dict(old)
    assert (found.pooling, found.reading.pooling, found.reading.space) == (pooling, pooling, "plain")
