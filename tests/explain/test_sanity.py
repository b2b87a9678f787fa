"""Random weights: stage by stage, on a copy, and telling an explainer that reads the model from one that does not."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from medssl.backbones.backbone import Backbone
from medssl.errors import DataError
from medssl.explain import ViTCX
from medssl.explain.explainer import Explainer, Saliency
from medssl.explain.faithfulness import METRICS, random_heatmap
from medssl.explain.sanity import Randomization, model_blocks, model_randomization, reinitialize, spearman
from medssl.images.preprocess import Preprocess
from tests.explain.test_vit_cx import make, picture
from tests.models import FAMILIES, save_model


class Patches(Explainer):
    """The patch tokens' length: reads the model, and nothing else."""

    method = title = "patches"

    def saliency(self, view):
        norms = (view.encoding.patches[0] ** 2).sum(dim=-1)
        return Saliency(np.kron(norms.numpy(), np.ones((16, 16), np.float32)), 0, 0, True)


class Blind(Explainer):
    """One map for everything: reads nothing."""

    method = title = "blind"

    def saliency(self, view):
        return Saliency(random_heatmap(*view.pixels.shape[-2:], 1), 0, 0, True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make("vit", tmp_path_factory.mktemp("vit"), (64, 64))


def weights(backbone):
    return {name: value.clone() for name, value in backbone.model.state_dict().items()}


def test_the_cascade_starts_at_1_falls_and_leaves_the_backbone_as_it_was(model):
    backbone, head = model
    before, images = weights(backbone), [picture(seed=seed) for seed in range(3)]
    result = model_randomization(Patches, backbone, head, images)
    assert result.blocks == (0, 1, 2) and result.correlations.shape == (3, 3)
    np.testing.assert_allclose(result.correlations[:, 0], 1, atol=1e-12)
    assert (result.correlations[:, 1:] < 0.9).all()
    after = backbone.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    again = model_randomization(Patches, backbone, head, images)
    assert np.array_equal(result.correlations, again.correlations)
    assert not np.array_equal(
        result.correlations, model_randomization(Patches, backbone, head, images, seed=9).correlations
    )


def test_the_cheap_stage_is_the_cascades_last_and_takes_explanations_already_made(model):
    backbone, head = model
    images = [picture(seed=4)]
    made = [Patches(backbone, head).explain(images[0])]
    fractions = []
    cheap = model_randomization(Patches, backbone, head, images, made, cascade=False, progress=fractions.append)
    whole = model_randomization(Patches, backbone, head, images)
    assert cheap.blocks == (2,) and fractions == [1.0]
    assert cheap.correlations[:, 0] == pytest.approx(whole.correlations[:, -1])
    with pytest.raises(DataError, match="1 explanations do not fit 2 images"):
        model_randomization(Patches, backbone, head, images * 2, made)


def test_an_explainer_that_does_not_read_the_model_is_found_out(model):
    backbone, head = model
    images = [picture(seed=5)]
    honest, blind = (model_randomization(kind, backbone, head, images, cascade=False) for kind in (Patches, Blind))
    assert blind.correlations[0, 0] == 1
    assert not METRICS["randomisation"].higher_is_better
    assert honest.likeness[0, 0] < blind.likeness[0, 0]


def test_vit_cx_through_it(model):
    backbone, head = model
    result = model_randomization(ViTCX, backbone, head, [picture(seed=6)])
    assert result.correlations[0, 0] == pytest.approx(1)
    assert result.to_dict()["blocks"] == [0, 1, 2] and result.to_dict()["images"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_blocks_and_each_changes(family, tmp_path):
    backbone = Backbone.from_pretrained(save_model(family, tmp_path), precision="fp32")
    image, preprocess = picture(), Preprocess(size=(56, 56) if "dinov2" in family else (64, 64))
    last = backbone.encode([image], preprocess, maps=False).patches
    blocks = model_blocks(backbone.model)
    state = torch.random.get_rng_state()
    for number in reversed(range(len(blocks))):
        before = {name: value.clone() for name, value in blocks[number].named_parameters() if value.std() > 0}
        before = {name: value for name, value in before.items() if value.ndim > 1}
        reinitialize(blocks[number], number)
        now = dict(blocks[number].named_parameters())
        assert before and not any(torch.equal(value, now[name]) for name, value in before.items())
        encoded = backbone.encode([image], preprocess, maps=False).patches
        assert torch.isfinite(encoded).all() and not torch.equal(encoded, last)
        last = encoded
    assert torch.equal(state, torch.random.get_rng_state())


def test_spearman_equals_scipys_and_knows_flat_maps():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 9, (8, 9)), rng.integers(0, 9, (8, 9))
    assert spearman(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert spearman(one, np.zeros((8, 9))) == 0 and np.isnan(spearman(np.zeros((8, 9)), one))
    found = Randomization((0, 2), np.array([[1.0, -0.5], [np.nan, np.nan]])).to_dict()
    assert found["correlation"] == [1, -0.5] and found["likeness"] == [1, 0.5]
    assert Randomization((2,), np.array([[np.nan]])).to_dict()["correlation"] == [None]
