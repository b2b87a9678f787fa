"""A likeness is explained from both sides alike, by the very score that the library ranks by."""

from dataclasses import replace

import numpy as np
import pytest

from medssl.errors import BundleError
from medssl.explain import ViTCX, make_explainer
from medssl.explain.likeness import explain_likeness
from medssl.library.library import Case
from tests.explain.test_vit_cx import make, picture


@pytest.fixture(scope="module")
def explainer(tmp_path_factory):
    return ViTCX(*make("vit", tmp_path_factory.mktemp("model"), (64, 64)))


def as_case(explainer, image, name="case-1"):
    head = explainer.head
    embedding = explainer.backbone.encode([image], head.preprocess).pool(head.pooling)[0].numpy()
    return Case(name, "a", 1.0, "group", "source", image, embedding)


def test_the_two_sides_are_each_others_mirror(explainer):
    one, other = picture(seed=1), picture(seed=2)
    there = explain_likeness(explainer, one, as_case(explainer, other))
    back = explain_likeness(explainer, other, as_case(explainer, one))
    assert there.explanation.evidence and there.explanation.target == "case-1"
    np.testing.assert_allclose(there.explanation.heatmap, back.mirrored.heatmap, atol=1e-4)
    np.testing.assert_allclose(there.mirrored.heatmap, back.explanation.heatmap, atol=1e-4)
    assert there.explanation.probability == pytest.approx(back.explanation.probability, abs=1e-6)
    assert not np.allclose(there.explanation.heatmap, explainer.explain(one).heatmap, atol=0.05)


def test_it_is_what_the_explainer_says_of_the_case(explainer):
    image, case = picture(seed=3), as_case(explainer, picture(seed=4))
    found, alone = explain_likeness(explainer, image, case, seed=5), explainer.explain(image, target=case, seed=5)
    np.testing.assert_array_equal(found.explanation.saliency, alone.saliency)
    assert explain_likeness(explainer, image, replace(case, image=None)).mirrored is None


def test_progress_goes_over_both_and_may_stop(explainer):
    told = []
    explain_likeness(explainer, picture(), as_case(explainer, picture(seed=6)), progress=told.append)
    assert told == sorted(told) and told[-1] == 1 and 0.5 in told


def test_a_case_without_embedding_is_refused(explainer):
    case = replace(as_case(explainer, picture()), embedding=None)
    with pytest.raises(BundleError, match="case-1.*no embedding.*search"):
        explain_likeness(explainer, picture(), case)


@pytest.mark.parametrize("method", ["attention_rollout", "random"])
def test_explainers_that_read_no_score_are_refused(explainer, method):
    other = make_explainer(method, explainer.backbone, explainer.head)
    with pytest.raises(BundleError, match="cannot explain a likeness"):
        explain_likeness(other, picture(), as_case(explainer, picture()))


@pytest.mark.parametrize("method", ["grad_cam", "occlusion", "gradient_rollout"])
def test_other_explainers_can_say_it_too(explainer, method):
    other = make_explainer(method, explainer.backbone, explainer.head)
    found = explain_likeness(other, picture(seed=7), as_case(explainer, picture(seed=8)))
    assert found.explanation.method == method and found.mirrored.evidence
