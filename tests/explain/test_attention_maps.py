"""The attention read off a twin equals what transformers itself hands out, and the model knows nothing of it."""

import threading

import numpy as np
import pytest
import torch
from transformers import AutoModel

from medssl.errors import BundleError
from medssl.explain.attention_maps import (
    attends_globally,
    attention_maps,
    check_attention,
    grid_saliency,
    patch_grid,
    twin,
)
from medssl.explain.registry import make_explainer
from tests.explain.test_vit_cx import make, picture
from tests.models import PREFIX_TOKENS

TRANSFORMERS = {"dinov2": 14, "dinov2-registers": 14, "vit": 16, "deit": 16, "mae": 16}


def plain_attentions(family, folder, pixels):
    """transformers' own way: a model loaded for it. Its attentions, and its last hidden state."""
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    extra = {} if family.startswith("dinov2") else {"interpolate_pos_encoding": True}
    if family == "mae":
        model.config.mask_ratio = 0.0
        extra["noise"] = torch.arange(pixels.shape[-1] * pixels.shape[-2] // 256)[None]
    found = model(pixel_values=pixels, output_attentions=True, **extra)
    return list(found.attentions), found.last_hidden_state


def plain_map(grid, size):
    """A grid at pixel size with its largest value made 1."""
    grid = torch.as_tensor(grid)[None, None] / torch.as_tensor(grid).max()
    return torch.nn.functional.interpolate(grid, size=size, mode="bilinear", align_corners=False)[0, 0].detach().numpy()


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_equals_what_transformers_hands_out(family, tmp_path):
    step = TRANSFORMERS[family]
    backbone, head = make(family, tmp_path, (step * 3, step * 5))
    pixels = backbone.pixels([picture()], head.preprocess)
    with torch.no_grad():
        encoding, found = attention_maps(backbone, pixels, lambda weights: weights)
        plain, hidden = plain_attentions(family, tmp_path, pixels)
        usual = backbone.forward(pixels)
    assert len(found) == len(plain) == 2
    for one, other in zip(found, plain, strict=True):
        assert one.shape == (1, 3, PREFIX_TOKENS[family] + 15, PREFIX_TOKENS[family] + 15)
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(encoding.cls, hidden[:, 0])
    torch.testing.assert_close(encoding.patches, usual.patches, atol=1e-5, rtol=1e-4)
    grid = patch_grid(torch.arange(PREFIX_TOKENS[family] + 15), backbone, pixels.shape[-2:])
    assert grid.shape == (3, 5) and grid[0, 0] == PREFIX_TOKENS[family]


def test_a_twin_shares_weights_and_nothing_else(tmp_path):
    backbone, _ = make("vit", tmp_path, (64, 64))
    handle = backbone.map_layer.register_forward_hook(lambda *_: None)
    apart = twin(backbone, "eager")
    handle.remove()
    pairs = list(zip(backbone.model.named_modules(), apart.model.named_modules(), strict=True))
    assert all(name == other and one is not two for (name, one), (other, two) in pairs)
    assert all(not module._forward_hooks for module in apart.model.modules())
    mine, theirs = (dict(model.named_parameters()) for model in (backbone.model, apart.model))
    assert mine.keys() == theirs.keys() and all(mine[name] is theirs[name] for name in mine)
    assert apart.model.config._attn_implementation == "eager" and backbone.model.config._attn_implementation == "sdpa"
    assert apart.map_layer is not backbone.map_layer and apart.map_layer.weight is backbone.map_layer.weight
    assert twin(backbone).model.config._attn_implementation == "sdpa"


def test_threads_do_not_meet(tmp_path):
    """Explanations and plain forwards of one backbone at once: each gives the bits it gives alone."""
    backbone, head = make("vit", tmp_path, (64, 64))
    pixels = backbone.pixels([picture()], head.preprocess)
    with torch.no_grad():
        alone = backbone.forward(pixels, maps=True)
    methods = ("gradient_rollout", "attention_rollout", "grad_cam")
    expected = {method: make_explainer(method, backbone, head).explain(picture(), 1).saliency for method in methods}
    wrong = []

    def forwards():
        for _ in range(30):
            with torch.no_grad():
                found = backbone.forward(pixels, maps=True)
            if not torch.equal(found.cls, alone.cls) or not torch.equal(found.maps, alone.maps):
                wrong.append("forward")

    def explanations(method):
        for _ in range(10):
            if not np.array_equal(
                make_explainer(method, backbone, head).explain(picture(), 1).saliency, expected[method]
            ):
                wrong.append(method)

    threads = [threading.Thread(target=forwards), *(threading.Thread(target=explanations, args=[m]) for m in methods)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("family", ["resnet", "swin", "convnext", "vit"])
def test_models_without_global_attention_are_told_apart_by_their_build(family, tmp_path, monkeypatch):
    from medssl.backbones.backbone import Backbone
    from tests.models import save_model

    backbone = Backbone.from_pretrained(save_model(family, tmp_path), precision="fp32")
    monkeypatch.setattr(Backbone, "forward", None)
    assert attends_globally(backbone) is (family == "vit")
    if family != "vit":
        with pytest.raises(BundleError, match="Some title needs attention.*grad_cam"):
            check_attention(backbone, "Some title")


def test_a_model_that_hides_its_attention_is_refused(tmp_path, monkeypatch):
    backbone, head = make("vit", tmp_path, (64, 64))
    attention = type(backbone.model.get_submodule("layers.0.attention"))
    monkeypatch.setattr(attention, "forward", lambda self, hidden_states, *_, **__: (hidden_states, None))
    with pytest.raises(BundleError, match="0 of its 2 blocks"):
        attention_maps(backbone, backbone.pixels([picture()], head.preprocess), lambda weights: weights)


@pytest.mark.parametrize("grid", [torch.zeros(3, 5), torch.full((3, 5), 0.7), torch.full((3, 5), torch.nan)])
def test_a_flat_or_broken_grid_is_no_evidence(grid):
    found = grid_saliency(grid, torch.Size((42, 70)), 2)
    assert not found.evidence and found.values.shape == (42, 70) and not found.values.any()
    assert found.forward_passes == 2 and found.masks == 0


def test_a_grid_is_upsampled_and_its_scale_does_not_matter():
    grid = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    found = grid_saliency(grid * 1e-20, torch.Size((42, 70)), 1)
    assert found.evidence and found.values.dtype == np.float32
    np.testing.assert_allclose(found.values, plain_map(grid, (42, 70)), atol=1e-6)
