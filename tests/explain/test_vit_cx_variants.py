"""The variants of ViT-CX beside plain versions, mask by mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from medssl.explain import ViTCX
from medssl.explain.causal_masks import causal_masks
from medssl.explain.explainer import View
from medssl.explain.faithfulness import blur
from medssl.explain.score import class_score
from medssl.explain.vit_cx_variants import BlurredViTCX, LargeViTCX, LayersViTCX
from tests.explain.test_vit_cx import make, picture


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make("vit", tmp_path_factory.mktemp("model"), (64, 96))


def weighted(masks, impacts):
    """The published sum, pixel by pixel."""
    total = sum(impact * mask for impact, mask in zip(impacts, masks, strict=True))
    return (total / sum(masks).clamp(min=1e-8) / len(masks)).numpy()


@torch.no_grad()
def test_blur_is_one_forward_a_mask_of_image_and_blur(model):
    backbone, head = model
    pixels = backbone.pixels([picture()], head.preprocess)
    masks = causal_masks(backbone.forward(pixels, maps=True).maps[0].permute(2, 0, 1), (64, 96))
    mixed = [pixels * mask + blur(pixels) * (1 - mask) for mask in masks]
    impacts = [head.classify(backbone.forward(one))[0, 1] for one in mixed]
    found = BlurredViTCX(backbone, head).explain(picture(), target="b", batch_size=3, low_precision=False)
    np.testing.assert_allclose(found.saliency, weighted(masks, impacts), atol=1e-5)
    assert found.forward_passes == 1 + len(masks) == 1 + found.masks


@torch.no_grad()
def test_layers_are_the_last_blocks_together(model, monkeypatch):
    backbone, head = model
    pixels = backbone.pixels([picture()], head.preprocess)
    first = backbone.reading(1).forward(pixels).layers[1]
    last = backbone.forward(pixels, maps=True).maps
    normed = (first - first.mean(-1, keepdim=True)) / first.std(-1, keepdim=True, unbiased=False)
    together = torch.cat([last, normed], -1)[0].permute(2, 0, 1)
    view = View(pixels, backbone.forward(pixels, maps=True), class_score(head, 1), 0.5, 0, lambda _fraction: None)
    monkeypatch.setattr("medssl.explain.vit_cx_variants.causal_masks", lambda *given: given)
    maps, *others = LayersViTCX(backbone, head).masks(view, 0.1, 7)
    torch.testing.assert_close(maps, together, atol=1e-4, rtol=0)
    assert maps.shape == (2 * 48, 4, 6) and others == [(64, 96), 0.1, 7]


def test_large_is_vit_cx_at_twice_the_side_with_the_usual_probability(model):
    backbone, head = model
    found = LargeViTCX(backbone, head).explain(picture(), target="b", seed=5)
    encoding = backbone.encode([picture()], head.preprocess)
    handed = LargeViTCX(backbone, head).explain(picture(), target="b", seed=5, encoding=encoding)
    usual = ViTCX(backbone, head).explain(picture(), target="b", seed=5)
    large = replace(head.preprocess, size=(128, 192))
    before, head.preprocess = head.preprocess, large
    try:
        expected = ViTCX(backbone, head).explain(picture(), target="b", seed=5)
    finally:
        head.preprocess = before
    assert np.array_equal(found.heatmap, expected.heatmap) and found.saliency.shape == (64, 96)
    np.testing.assert_allclose(found.saliency, expected.saliency.reshape(64, 2, 96, 2).mean((1, 3)), atol=1e-6)
    assert found.probability == pytest.approx(usual.probability) != pytest.approx(expected.probability, abs=1e-6)
    assert np.array_equal(handed.saliency, found.saliency) and handed.forward_passes == found.forward_passes - 1
    assert head.preprocess.size == (64, 96)


def test_a_real_picture_file_goes_through_all(model):
    for kind in (BlurredViTCX, LayersViTCX, LargeViTCX):
        found = kind(*model).explain(Image.new("L", (40, 70), 120).convert("RGB"))
        assert found.heatmap.shape == (70, 40) and np.isfinite(found.heatmap).all()
