"""Attention rollout against a literal version of the paper's, entry by entry."""

import numpy as np
import pytest
import torch
from PIL import Image

from medssl.explain.attention_rollout import AttentionRollout, rollout
from medssl.heads.head import ClassificationHead
from medssl.images.preprocess import Preprocess
from tests.explain.test_attention_maps import TRANSFORMERS, plain_attentions, plain_map
from tests.explain.test_vit_cx import make, picture
from tests.models import PREFIX_TOKENS


def plain_rollout(attentions):
    """Their equation: A~ of block i = A_i A~ of block i-1, A half identity, rows normalised."""
    total = None
    for weights in attentions:
        heads, tokens = weights.shape[1], weights.shape[2]
        mixed = np.zeros((tokens, tokens))
        for i in range(tokens):
            for j in range(tokens):
                mixed[i, j] = 0.5 * sum(float(weights[0, h, i, j]) for h in range(heads)) / heads + 0.5 * (i == j)
            mixed[i] /= mixed[i].sum()
        total = mixed if total is None else mixed @ total
    return total


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_equals_the_plain_version(family, tmp_path):
    step = TRANSFORMERS[family]
    backbone, head = make(family, tmp_path, (step * 3, step * 5))
    explanation = AttentionRollout(backbone, head).explain(picture(), target="b")
    with torch.no_grad():
        attentions, _ = plain_attentions(family, tmp_path, backbone.pixels([picture()], head.preprocess))
    row = plain_rollout(attentions)[0, PREFIX_TOKENS[family] :].reshape(3, 5)
    np.testing.assert_allclose(explanation.saliency, plain_map(row, head.preprocess.size), atol=1e-4)
    assert explanation.forward_passes == 2 and explanation.masks == 0 and explanation.evidence


@pytest.mark.parametrize("pooling", ["mean", "cls+mean"])
def test_the_flow_ends_where_the_head_reads(pooling, tmp_path):
    backbone, _ = make("dinov2-registers", tmp_path, (42, 70))
    width = backbone.embedding_dim(pooling)
    head = ClassificationHead.from_linear(
        torch.zeros(2, width), torch.zeros(2), ["a", "b"], backbone, pooling, preprocess=Preprocess((42, 70)).to_dict()
    )
    with torch.no_grad():
        attentions, _ = plain_attentions(
            "dinov2-registers", tmp_path, backbone.pixels([picture()], Preprocess((42, 70)))
        )
    flow = plain_rollout(attentions)
    row = flow[5:].mean(axis=0) + (flow[0] if "cls" in pooling else 0)
    found = AttentionRollout(backbone, head).explain(picture()).saliency
    np.testing.assert_allclose(found, plain_map(row[5:].reshape(3, 5), (42, 70)), atol=1e-4)


def test_rows_of_the_flow_sum_to_one():
    weights = [torch.rand(6, 6, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    torch.testing.assert_close(rollout(weights).sum(dim=-1), torch.ones(6))


def test_it_finds_the_patch_that_is_attended_to_whatever_is_asked(tmp_path):
    """A first block made to look at bright patches: the map must point at the lit one, for every class alike."""
    backbone, head = make("vit", tmp_path, (64, 64))
    lit = np.zeros((64, 64, 3), np.uint8)
    lit[16:32, 48:64] = 255
    image = Image.fromarray(lit)
    block = backbone.model.get_submodule("layers.0")
    seen = []
    handle = block.attention.q_proj.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0][0]))
    backbone.encode([image], head.preprocess)
    handle.remove()
    direction = seen[0][1 + 7] - seen[0][1 + 10]
    block.attention.k_proj.weight.copy_(torch.eye(48))
    block.attention.q_proj.weight.zero_()
    block.attention.q_proj.bias.copy_(direction)
    maps = [AttentionRollout(backbone, head).explain(image, target=target).saliency for target in "abc"]
    assert np.array_equal(maps[0], maps[1]) and np.array_equal(maps[0], maps[2])
    row, column = np.unravel_index(maps[0].argmax(), maps[0].shape)
    assert 16 <= row < 32 and 48 <= column < 64
