import numpy as np
import pytest
import torch
from PIL import Image

from medssl.backbones.backbone import Backbone
from medssl.errors import BundleError
from medssl.explain.evidence_map import EvidenceMap
from medssl.explain.score import case_score, margin_score
from medssl.heads.head import ClassificationHead
from medssl.heads.patch import PatchHead
from tests.models import save_model

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return Backbone.from_pretrained(save_model("dinov2", tmp_path_factory.mktemp("dinov2")))


def make(backbone, layer=None):
    torch.manual_seed(0)
    weight = torch.randn(3, 48) / 7
    return PatchHead.from_patch_linear(weight, torch.zeros(3), LABELS, backbone, share=0.2, layer=layer)


def picture(seed=0, size=(90, 60)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("layer", [None, 1])
def test_the_map_is_the_heads_own_evidence(backbone, layer):
    head = make(backbone, layer)
    # The plain backbone is handed in: the explainer asks it for the head's block itself.
    found = EvidenceMap(backbone, head).explain(picture(), target="b")
    encoding = backbone.reading(layer).encode([picture()])
    grid = head.evidence_map(encoding, 1)[0].numpy()
    assert found.method == "evidence_map" and found.target == "b" and found.masks == 0 and found.evidence
    assert found.heatmap.shape == (60, 90) and found.heatmap.min() == 0 and found.heatmap.max() == 1
    # A bilinear map passes exactly through no patch centre of an even stride, but as near as one pixel.
    centers = found.saliency[7::14, 7::14]
    np.testing.assert_allclose(centers, grid, atol=0.08 * np.ptp(grid))
    assert found.probability == pytest.approx(float(head.classify(encoding)[0, 1]), abs=1e-6)


def test_no_forward_beyond_the_encoding(backbone, monkeypatch):
    head = make(backbone, 1)
    explainer = EvidenceMap(backbone, head)
    encoding = explainer.backbone.encode([picture()])
    monkeypatch.setattr(explainer.backbone, "forward", lambda *_a, **_k: pytest.fail("a forward was made"))
    assert explainer.explain(picture(), encoding=encoding).forward_passes == 0


def test_a_constant_map_is_no_evidence(backbone):
    head = make(backbone)
    head.patch_linear.weight.zero_()
    found = EvidenceMap(backbone, head).explain(picture(), target="a")
    assert not found.evidence and not found.heatmap.any()


def test_a_margin_is_the_evidence_less_that_for_the_rival(backbone):
    head = make(backbone)
    encoding = backbone.encode([picture()])
    likely = head.classify(encoding)[0].tolist()
    rival = max((index for index in range(3) if index != 0), key=likely.__getitem__)
    found = EvidenceMap(backbone, head).explain(picture(), target=margin_score(head, 0))
    maps = [EvidenceMap(backbone, head).explain(picture(), target=index).saliency for index in (0, rival)]
    np.testing.assert_allclose(found.saliency, maps[0] - maps[1], atol=1e-5)


def test_other_heads_and_scores_are_refused(backbone):
    linear = ClassificationHead.from_linear(torch.zeros(3, 48), torch.zeros(3), LABELS, backbone)
    with pytest.raises(BundleError, match="'linear'.*head='patch'"):
        EvidenceMap(backbone, linear)
    with pytest.raises(BundleError, match="'case'.*class, margin"):
        EvidenceMap(backbone, make(backbone)).explain(picture(), target=case_score("x", np.ones(48), "cls"))
