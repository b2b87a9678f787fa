"""A right heatmap beats random ones on its own image, a wrong one does not, and the figures are plain JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from medssl.errors import BundleError, DataError
from medssl.explain import ViTCX
from medssl.explain.faithfulness import CURVE_METRICS, curve_passes, deletion_insertion
from medssl.explain.score import class_score, margin_score
from medssl.explain.verification import against_random, verify
from tests.explain.test_faithfulness import read_patch_model, true_map


@pytest.fixture(scope="module")
def lit(tmp_path_factory):
    backbone, head, image = read_patch_model(tmp_path_factory.mktemp("lit"))
    explainer = ViTCX(backbone, head)
    explanation = explainer.explain(image, target="lit")
    return explainer, image, replace(explanation, saliency=true_map(), evidence=True)


def test_the_true_map_beats_random_maps_and_its_inverse_none(lit):
    explainer, image, explanation = lit
    true = verify(explainer, image, explanation, random_maps=4, steps=6)
    wrong = verify(explainer, image, replace(explanation, saliency=-true_map()), random_maps=4, steps=6)
    for name in CURVE_METRICS:
        good, bad = getattr(true, name), getattr(wrong, name)
        assert good.random_mean == pytest.approx(bad.random_mean, abs=1e-6)
        assert good.random_low <= good.random_mean <= good.random_high
    assert true.deletion.value < true.deletion.random_mean and true.deletion.beats >= 0.75
    assert true.insertion_minus_deletion.beats == 1 and wrong.insertion_minus_deletion.beats == 0
    assert true.target == "lit" and true.forward_passes == curve_passes(5, 6)
    pixels = explainer.backbone.pixels([image], explainer.head.preprocess)
    alone = deletion_insertion(explainer.scores, class_score(explainer.head, 0), pixels, [true_map()], 6)[0]
    assert true.deletion.value == pytest.approx(alone.deletion, abs=1e-6)


def test_it_is_seeded_plain_json_and_counts_its_passes(lit, monkeypatch):
    explainer, image, explanation = lit
    seen, fractions, forward = [], [], explainer.backbone.forward
    monkeypatch.setattr(explainer.backbone, "forward", lambda x, **more: seen.append(len(x)) or forward(x, **more))
    found = verify(explainer, image, explanation, random_maps=2, seed=3, steps=3, progress=fractions.append)
    assert sum(seen) == found.forward_passes and fractions == sorted(fractions) and fractions[-1] == 1
    again = verify(explainer, image, explanation, random_maps=2, seed=3, steps=3)
    other = verify(explainer, image, explanation, random_maps=2, seed=4, steps=3)
    assert replace(found, seconds=0) == replace(again, seconds=0)
    assert found.insertion.random_mean != other.insertion.random_mean
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["deletion"]["value"] == found.deletion.value and plain["deletion"]["higher_is_better"] is False


def test_a_map_without_evidence_is_verified_as_the_empty_one_that_is_shown(lit):
    explainer, image, explanation = lit
    found = verify(explainer, image, replace(explanation, evidence=False), random_maps=1, steps=2)
    empty = verify(explainer, image, replace(explanation, saliency=0 * true_map()), random_maps=1, steps=2)
    assert found.deletion == empty.deletion and found.insertion == empty.insertion


def test_other_scores_and_what_is_refused(lit):
    explainer, image, explanation = lit
    margin = margin_score(explainer.head, 0)
    assert verify(explainer, image, explanation, margin, random_maps=1, steps=2).deletion.value != pytest.approx(
        verify(explainer, image, explanation, random_maps=1, steps=2).deletion.value
    )
    with pytest.raises(BundleError, match="no class 'case-7'"):
        verify(explainer, image, replace(explanation, target="case-7"))
    with pytest.raises(DataError, match="random_maps is 0"):
        verify(explainer, image, explanation, random_maps=0)
    with pytest.raises(DataError, match=r"\(10, 10\)"):
        verify(explainer, image, replace(explanation, saliency=np.zeros((10, 10))))

    def stop(_fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(explainer, image, explanation, progress=stop)
    assert not torch.is_grad_enabled() or explainer.head.linear.weight.grad is None


def test_beating_counts_ties_half_and_knows_the_direction():
    control = np.array([0.1, 0.2, 0.2, 0.4])
    assert against_random(0.2, control, True).beats == 0.5
    assert against_random(0.15, control, True).beats == 0.25 and against_random(0.15, control, False).beats == 0.75
    assert against_random(0.1, control, False).beats == 0.875
