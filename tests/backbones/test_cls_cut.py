"""The last block for CLS alone: the same CLS, no patches, and no cut where it could not be proved."""

import pytest
import torch

from medssl.backbones.backbone import Backbone
from tests.models import FAMILIES, save_model

CUT = ("dinov2", "dinov2-registers", "vit", "deit", "mae")


@pytest.mark.parametrize("low_precision", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_cls_is_that_of_the_whole_block(family, low_precision, tmp_path):
    backbone = Backbone.from_pretrained(save_model(family, tmp_path), precision="bf16")
    height, width = backbone.preprocess.size
    pixels = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        whole = backbone.forward(pixels, low_precision=low_precision)
        cut = backbone.forward(pixels, low_precision=low_precision, cls_only=True)
    model = backbone._low_precision_model if low_precision else backbone.model
    assert (backbone._cls_cut(model) is not None) == (family in CUT)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    if family in ("dinov2", "vit"):
        assert backbone._cls_cut(model).projection is not None
    if family not in CUT:
        torch.testing.assert_close(cut.patches, whole.patches)
        return
    tolerance = {"atol": 0.15, "rtol": 0.05} if low_precision else {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(cut.cls, whole.cls, **tolerance)
    assert cut.patches.shape == whole.patches.shape and cut.patches.isnan().all()


def test_maps_are_never_cut(tmp_path):
    backbone = Backbone.from_pretrained(save_model("vit", tmp_path), precision="fp32")
    pixels = torch.randn(1, 3, 64, 64)
    encoding = backbone.forward(pixels, maps=True, cls_only=True)
    assert torch.isfinite(encoding.patches).all() and torch.isfinite(encoding.maps).all()


def test_a_block_that_a_cut_would_change_is_left_whole(tmp_path, monkeypatch):
    backbone = Backbone.from_pretrained(save_model("vit", tmp_path), precision="fp32")
    monkeypatch.setattr("medssl.backbones.backbone.same", lambda *_: False)
    encoding = backbone.forward(torch.randn(1, 3, 64, 64), cls_only=True)
    assert torch.isfinite(encoding.patches).all()
