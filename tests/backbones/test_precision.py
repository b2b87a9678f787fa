"""The fast forwards' precision: int8 products against float32 ones, and what is refused."""

import numpy as np
import pytest
import torch

from medssl.backbones.backbone import Backbone
from medssl.backbones.precision import Int8Linear, Precision, native_bf16, native_int8, with_int8_linears
from medssl.errors import BackboneError
from medssl.explain.vit_cx import ViTCX
from medssl.heads.head import ClassificationHead
from tests.backbones.test_backbone import pictures
from tests.models import save_model

CPU = torch.device("cpu")
needs_int8 = pytest.mark.skipif(not native_int8(CPU), reason="this processor has no VNNI")


def plain_int8(layer: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    """The layer with inputs and weights rounded to 255 steps, number by number, multiplied in float64."""
    outputs = torch.zeros(len(inputs), layer.out_features, dtype=torch.float64)
    for row, values in enumerate(inputs.double()):
        step = max(float(values.abs().max()), 1e-8) / 127
        rounded = torch.round(values / step)
        for column, weights in enumerate(layer.weight.double()):
            own = max(float(weights.abs().max()), 1e-8) / 127
            product = float((rounded * torch.round(weights / own)).sum()) * step * own
            outputs[row, column] = product + float(layer.bias[column])
    return outputs


def test_a_layer_is_the_plain_reference_of_rounded_numbers():
    torch.manual_seed(0)
    layer, inputs = torch.nn.Linear(24, 10), torch.randn(7, 24) * torch.logspace(-3, 3, 7)[:, None]
    with torch.no_grad():
        found, expected = Int8Linear(layer)(inputs), plain_int8(layer, inputs)
        exact = layer(inputs)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    # A large token does not coarsen a small one: each row is off by its own scale alone.
    errors = (found - exact).norm(dim=1) / exact.norm(dim=1)
    assert 0 < errors.max() < 0.02


def test_zeros_give_the_bias_and_shapes_are_kept():
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 5)
    outputs = Int8Linear(layer)(torch.zeros(2, 3, 8, dtype=torch.bfloat16))
    assert outputs.shape == (2, 3, 5) and outputs.dtype == torch.bfloat16
    torch.testing.assert_close(outputs[1, 2].float(), layer.bias.detach(), rtol=0.01, atol=0.01)
    alone = torch.nn.Linear(8, 5, bias=False)
    assert not Int8Linear(alone)(torch.zeros(1, 8)).any()


def test_layers_whose_weights_are_taken_without_a_call_are_left():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.attention = torch.nn.Linear(8, 8), torch.nn.MultiheadAttention(8, 2)

        def forward(self, x):
            y = self.first(x)
            return self.attention(y, y, y)[0]

    model, other = Model(), Model()
    other.load_state_dict(model.state_dict())
    with_int8_linears(other, model)
    assert isinstance(other.first, Int8Linear)
    x = torch.randn(4, 1, 8)
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=0.1, atol=0.1)


def test_what_is_refused_is_said(monkeypatch):
    with pytest.raises(BackboneError, match="Unknown precision 'int3'.*auto, fp32, bf16, int8"):
        Precision.of("int3", CPU)
    with pytest.raises(BackboneError, match="int8 needs a processor with VNNI; this cuda has none"):
        Precision.of("int8", torch.device("cuda"))
    monkeypatch.setattr("medssl.backbones.precision.native_int8", lambda device: False)
    with pytest.raises(BackboneError, match="this cpu has none"):
        Precision.of("int8", CPU)


@needs_int8
@pytest.mark.parametrize("family", ["dinov2", "dinov2-registers", "vit", "deit", "mae"])
def test_scores_alone_are_in_int8_and_close_to_float32(family, tmp_path):
    folder = save_model(family, tmp_path)
    exact, fast, plain = (Backbone.from_pretrained(folder, precision=name) for name in ("fp32", "int8", "auto"))
    pixels, pooling = exact.pixels(pictures(4)), exact.default_pooling
    assert (fast.precision, fast.score_precision) == (plain.precision, "int8") and exact.scoring is exact
    assert np.array_equal(fast.embed(pixels, pooling), plain.embed(pixels, pooling))
    with torch.inference_mode():
        one, other = (b.forward(pixels, low_precision=True).pool(pooling) for b in (exact, fast.scoring))
        kept = fast.forward(pixels, low_precision=True).pool(pooling)
        seen = fast.reading(1).scoring.forward(pixels, low_precision=True)
        assert torch.equal(kept, plain.forward(pixels, low_precision=True).pool(pooling))
    assert torch.nn.functional.cosine_similarity(one, other).min() > 0.99 and not torch.equal(one, other)
    assert torch.equal(seen.pool(pooling), other) and set(seen.layers) == {1}
    torch.testing.assert_close(fast.encode(pictures(4)).pool(pooling), exact.encode(pictures(4)).pool(pooling))


def test_auto_follows_the_device():
    best = "bf16" if native_bf16(CPU) else "fp32"
    assert Precision.of("auto", CPU) == Precision(best, best) and Precision.of("fp32", CPU) == Precision("fp32", "fp32")


@needs_int8
@pytest.mark.parametrize("noise", ["full", "first_order"])
def test_a_map_says_its_precision_and_agrees_with_float32(noise, tmp_path):
    backbone = Backbone.from_pretrained(save_model("dinov2", tmp_path), precision="int8")
    torch.manual_seed(0)
    head = ClassificationHead.from_linear(torch.randn(3, backbone.dimension), torch.zeros(3), list("abc"), backbone)
    (image,) = pictures(1)
    fast, exact = (ViTCX(backbone, head).explain(image, noise=noise, low_precision=low) for low in (True, False))
    assert (fast.settings["precision"], exact.settings["precision"]) == ("int8", "fp32")
    assert np.corrcoef(fast.saliency.ravel(), exact.saliency.ravel())[0, 1] > 0.9
