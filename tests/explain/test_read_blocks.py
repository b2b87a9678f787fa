"""Explainers that look inside the model, for a head that reads an earlier block and nothing behind it."""

import numpy as np
import pytest
import torch

from medssl.backbones.backbone import Backbone
from medssl.explain.attention_maps import attention_maps
from medssl.explain.attention_rollout import AttentionRollout, rollout
from medssl.explain.grad_cam import GradCAM
from medssl.explain.gradient_rollout import GradientRollout
from medssl.heads.head import ClassificationHead
from tests.backbones.test_backbone import pictures
from tests.models import FAMILIES, save_model


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    config = FAMILIES["vit"][1]
    before, config.num_hidden_layers = config.num_hidden_layers, 4
    folder = save_model("vit", tmp_path_factory.mktemp("vit"))
    config.num_hidden_layers = before
    return Backbone.from_pretrained(folder, precision="fp32")


def head_of(backbone, pooling):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, backbone.embedding_dim(pooling), generator=generator)
    return ClassificationHead.from_linear(weight, torch.zeros(2), ["a", "b"], backbone, pooling, temperature=20.0)


def test_attention_flows_up_to_the_block_that_is_read_and_no_further(backbone):
    pixels = backbone.pixels(pictures(1))
    _, weights = attention_maps(backbone, pixels, lambda found: found[0].mean(dim=0))
    expected = rollout(weights[:2])[0] + rollout(weights[:3])[1:].mean(dim=0)
    expected = expected[1:].unflatten(0, (4, 4))[None, None].double().detach()
    expected = torch.nn.functional.interpolate(expected / expected.max(), (64, 64), mode="bilinear")[0, 0]
    found = AttentionRollout(backbone, head_of(backbone, "cls2+mean3")).explain(pictures(1)[0])
    np.testing.assert_allclose(found.saliency, expected.float().numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", [GradCAM, GradientRollout])
@pytest.mark.parametrize("pooling", ["cls2", "mean2", "cls2+mean3", "cls3+cls"])
def test_gradients_are_taken_where_the_head_reads(kind, pooling, backbone):
    found = kind(backbone, head_of(backbone, pooling)).explain(pictures(1)[0], "a")
    assert found.saliency.any() and np.isfinite(found.saliency).all()


def test_gradient_rollout_of_a_blocks_mean_is_that_of_its_patches(backbone):
    """The last block's tokens through the norm are the final ones, so both ways to read them must agree."""
    maps = [
        GradientRollout(backbone, head_of(backbone, pooling)).explain(pictures(1)[0], "a").saliency
        for pooling in ("cls+mean", "cls4+mean4")
    ]
    np.testing.assert_allclose(*maps, atol=1e-4)
