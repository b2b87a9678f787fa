"""Grad-CAM against a literal version, channel by channel, on a whole graph."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from medssl.explain.grad_cam import GradCAM
from medssl.explain.score import class_score
from medssl.heads.patch import PatchHead
from tests.explain.test_attention_maps import plain_map
from tests.explain.test_vit_cx import FAMILIES, make, picture
from tests.models import PREFIX_TOKENS


def plain_cam(features, gradients):
    """features, gradients [C, h, w]: each channel times its mean gradient, summed, the negative cut off."""
    total = np.zeros(features.shape[1:])
    for channel, gradient in zip(features, gradients, strict=True):
        total += float(gradient.mean()) * channel.detach().double().numpy()
    return np.maximum(total, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_plain_version(family, tmp_path):
    step = FAMILIES[family]
    size = (step * 3, step * 5)
    backbone, head = make(family, tmp_path, size)
    if family == "resnet":
        head.temperature = 2e4  # its random features saturate the probabilities
    pixels = backbone.pixels([picture()], head.preprocess).requires_grad_(True)
    model = AutoModel.from_pretrained(tmp_path).eval()
    kept = []
    if family != "resnet":
        norm = [m for name, m in model.named_modules() if name.endswith(("1.layernorm_before", "1.norm1"))]
        assert len(norm) == 1
        norm[0].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    extra = {"interpolate_pos_encoding": True} if family in ("vit", "deit") else {}
    hidden = model(pixel_values=pixels, **extra).last_hidden_state
    features = hidden if family == "resnet" else kept[0]
    features.retain_grad()
    embedding = hidden.mean(dim=(2, 3)) if family == "resnet" else hidden[:, 0]
    head.probabilities(embedding)[0, 1].backward()
    found, gradient = features[0], features.grad[0]
    if family != "resnet":
        prefix = PREFIX_TOKENS[family]
        found, gradient = (tokens[prefix:].T.reshape(48, 3, 5) for tokens in (found, gradient))
    expected = plain_map(plain_cam(found, gradient), size)
    explanation = GradCAM(backbone, head).explain(picture(), target="b")
    np.testing.assert_allclose(explanation.saliency, expected, atol=1e-3)
    assert explanation.evidence and explanation.masks == 0
    assert explanation.forward_passes == (2 if family == "resnet" else 3)


def test_the_encoding_handed_in_is_left_as_it_was(tmp_path):
    backbone, head = make("resnet", tmp_path, (96, 160))
    encoding = backbone.encode([picture()], head.preprocess)
    before = encoding.patches.clone()
    GradCAM(backbone, head).explain(picture(), encoding=encoding)
    assert torch.equal(before, encoding.patches)
    assert not encoding.patches.requires_grad and encoding.patches.grad is None


def test_a_head_that_reads_an_earlier_block_is_explained_there(tmp_path):
    backbone, linear = make("vit", tmp_path, (48, 80))
    torch.manual_seed(3)
    head = PatchHead.from_patch_linear(
        torch.randn(3, 48) * 0.1, torch.zeros(3), ["a", "b", "c"], backbone, share=0.2, layer=1,
        preprocess=linear.preprocess.to_dict(),
    )  # fmt: skip
    reading = backbone.reading(1)
    encoding = reading.encode([picture()], head.preprocess)
    patches = encoding.layers[1].clone().requires_grad_(True)
    evidence = head.evidence(patches.flatten(1, 2))[0]
    best = torch.stack([evidence[:, index].topk(3).values.mean() for index in range(3)])
    best.softmax(dim=-1)[1].backward()
    cam = plain_cam(patches[0].permute(2, 0, 1), patches.grad[0].permute(2, 0, 1))
    explanation = GradCAM(reading, head).explain(picture(), target=class_score(head, 1), encoding=encoding)
    np.testing.assert_allclose(explanation.saliency, plain_map(cam, (48, 80)), atol=1e-3)
    assert explanation.forward_passes == 1
