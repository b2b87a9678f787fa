"""Stored and loaded heads predict alike, whatever their weights, settings and thresholds (a property test)."""

import tempfile

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medssl.backbones.encoding import Encoding
from medssl.heads.config import HeadConfig, Thresholds
from medssl.heads.head import ClassificationHead
from medssl.heads.patch import PatchHead, PatchHeadConfig, load_head
from medssl.heads.prediction_sets import AdaptiveSets
from medssl.images.preprocess import Preprocess

WIDTH = 6
probability = st.floats(0, 1)
label = st.text(min_size=1, max_size=12)


@st.composite
def adaptive_sets(draw):
    bands = draw(st.integers(1, 3))
    return AdaptiveSets(
        edges=sorted(draw(st.lists(probability, min_size=bands - 1, max_size=bands - 1))),
        probabilities=draw(st.lists(probability, min_size=bands, max_size=bands)),
        groups=draw(st.lists(st.integers(1, 99), min_size=bands, max_size=bands)),
        class_groups=draw(st.dictionaries(label, st.integers(0, 99), max_size=3)),
        minimum_mass=draw(st.floats(0.1, 1)),
    )


@st.composite
def heads(draw):
    thresholds = Thresholds(
        conformal_level=draw(st.floats(0.5, 0.99)),
        conformal_probability=draw(st.none() | probability),
        adaptive=draw(st.none() | adaptive_sets()),
        familiarity=draw(st.none() | st.floats(-1, 1)),
        familiarity_neighbors=draw(st.integers(1, 20)),
    )
    common = {
        "labels": draw(st.lists(label, min_size=2, max_size=5, unique=True)),
        "embedding_dim": WIDTH,
        "backbone": {"id": draw(label), "revision": "1", "dimension": WIDTH},
        "pooling": draw(st.sampled_from(["cls", "mean"])),
        "preprocess": Preprocess(size=(draw(st.integers(1, 999)), 14), fit=draw(st.sampled_from(["squash", "pad"]))),
        "temperature": draw(st.floats(0.05, 20)),
        "thresholds": thresholds,
        "fitted_on": draw(st.dictionaries(label, st.integers() | label, max_size=3)),
    }
    if draw(st.booleans()):
        head = ClassificationHead(HeadConfig(**common))
    else:
        share, layer = draw(st.floats(0.01, 1)), draw(st.none() | st.integers(1, 12))
        head = PatchHead(PatchHeadConfig(**common, share=share, layer=layer))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    for parameter in head.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return head


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(head=heads(), seed=st.integers(0, 2**31))
def test_stored_and_loaded_heads_predict_alike(head, seed):
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(3, 2, 4, WIDTH, generator=generator)
    layers = {} if head.layer is None else {head.layer: patches}
    encoding = Encoding(torch.randn(3, WIDTH, generator=generator), patches, layers=layers)
    with tempfile.TemporaryDirectory() as folder:
        head.save_pretrained(folder)
        again = load_head(folder)
    assert type(again) is type(head) and again.config == head.config
    assert torch.equal(again.classify(encoding), head.classify(encoding))
    predictions = head.predict_encoding(encoding)
    assert again.predict_encoding(encoding) == predictions
    for prediction in predictions:
        assert prediction.label in prediction.prediction_set or head.thresholds.adaptive is None
        assert np.isclose(sum(prediction.probabilities.values()), 1, atol=1e-5)
