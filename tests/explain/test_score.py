"""Which scores read CLS alone: tried on an encoding without the rest."""

import numpy as np
import pytest
import torch

from medssl.backbones.backbone import Backbone
from medssl.explain import ViTCX
from medssl.explain.score import Score, case_score, class_score, reads_only_cls
from medssl.heads.head import ClassificationHead
from medssl.heads.patch import PatchHead
from tests.explain.test_vit_cx import picture
from tests.models import save_model


@pytest.fixture
def backbone(tmp_path):
    return Backbone.from_pretrained(save_model("vit", tmp_path), precision="fp32")


def linear(backbone, pooling):
    weight = torch.randn(3, backbone.embedding_dim(pooling))
    return ClassificationHead.from_linear(weight, torch.zeros(3), list("abc"), backbone, pooling)


@pytest.mark.parametrize(("pooling", "expected"), [("cls", True), ("mean", False), ("cls+mean", False)])
def test_of_a_linear_head(pooling, expected, backbone):
    encoding = backbone.encode([picture()])
    case = encoding.pool(pooling)[0] + 1
    assert reads_only_cls(class_score(linear(backbone, pooling), 1), encoding, 2) == expected
    assert reads_only_cls(case_score("case", case, pooling), encoding, 2) == expected


@pytest.mark.parametrize("layer", [None, 1, 2])
def test_of_a_patch_head(layer, backbone):
    head = PatchHead.from_patch_linear(
        torch.randn(3, 48), torch.zeros(3), list("abc"), backbone, share=0.5, layer=layer
    )
    encoding = backbone.reading(layer).encode([picture()])
    # What block 1 of two says is not touched by a cut of the last.
    assert reads_only_cls(class_score(head, 0), encoding, 2) == (layer == 1)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_map_is_the_same_as_without_the_cut(pooling, backbone, monkeypatch):
    explainer = ViTCX(backbone, linear(backbone, pooling))
    quick = explainer.explain(picture(), low_precision=False)
    monkeypatch.setattr("medssl.explain.explainer.reads_only_cls", lambda *_: False)
    whole = explainer.explain(picture(), low_precision=False)
    assert quick.forward_passes == whole.forward_passes
    np.testing.assert_allclose(quick.saliency, whole.saliency, atol=2e-5)


def test_a_score_of_ones_own(backbone):
    encoding = backbone.encode([picture()])
    assert reads_only_cls(Score("own", "class", lambda found: found.cls[:, 0]), encoding, 2)
    assert not reads_only_cls(Score("own", "class", lambda found: found.patches[:, 0, 0, 0]), encoding, 2)
