"""Gradient rollout against a literal version of the paper's rule on transformers' own attention."""

import numpy as np
import pytest
import torch

from medssl.explain.gradient_rollout import GradientRollout
from medssl.explain.score import case_score, margin_score
from medssl.heads.head import ClassificationHead
from medssl.images.preprocess import Preprocess
from tests.explain.test_attention_maps import TRANSFORMERS, plain_attentions, plain_map
from tests.explain.test_vit_cx import make, picture
from tests.models import PREFIX_TOKENS


def plain_relevance(attentions, gradients):
    """R starts as the identity; each block adds (mean over heads of the positive gradient x attention) R."""
    tokens = attentions[0].shape[-1]
    total = np.eye(tokens)
    for weights, gradient in zip(attentions, gradients, strict=True):
        raised = np.zeros((tokens, tokens))
        for head in range(weights.shape[1]):
            raised += np.maximum((weights[0, head] * gradient[0, head]).detach().double().numpy(), 0) / weights.shape[1]
        total = total + raised @ total
    return total


def plain_run(family, folder, pixels, score_of_hidden):
    pixels = pixels.clone().requires_grad_(True)
    attentions, hidden = plain_attentions(family, folder, pixels)
    for weights in attentions:
        weights.retain_grad()
    hidden.retain_grad()
    score_of_hidden(hidden).backward()
    zeros = [torch.zeros_like(weights) if weights.grad is None else weights.grad for weights in attentions]
    return plain_relevance(attentions, zeros), hidden.grad


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_equals_the_plain_version(family, tmp_path):
    step, prefix = TRANSFORMERS[family], PREFIX_TOKENS[family]
    backbone, head = make(family, tmp_path, (step * 3, step * 5))
    explanation = GradientRollout(backbone, head).explain(picture(), target="b")
    pixels = backbone.pixels([picture()], head.preprocess)
    found, _ = plain_run(family, tmp_path, pixels, lambda hidden: head.probabilities(hidden[:, 0])[0, 1])
    expected = plain_map(found[0, prefix:].reshape(3, 5), head.preprocess.size)
    np.testing.assert_allclose(explanation.saliency, expected, atol=1e-3)
    assert explanation.forward_passes == 3 and explanation.masks == 0 and explanation.evidence


@pytest.mark.parametrize("pooling", ["mean", "cls+mean"])
def test_rows_count_by_the_gradient_at_their_token(pooling, tmp_path):
    backbone, _ = make("deit", tmp_path, (48, 80))
    torch.manual_seed(2)
    head = ClassificationHead.from_linear(
        torch.randn(3, backbone.embedding_dim(pooling)) * 0.3,
        torch.zeros(3),
        ["a", "b", "c"],
        backbone,
        pooling,
        preprocess=Preprocess((48, 80)).to_dict(),
    )

    def score(hidden):
        mean = hidden[:, 2:].mean(dim=1)
        return head.probabilities(mean if pooling == "mean" else torch.cat([hidden[:, 0], mean], dim=-1))[0, 2]

    found, gradient = plain_run("deit", tmp_path, backbone.pixels([picture()], head.preprocess), score)
    ends = gradient[0].norm(dim=-1).double().numpy()
    assert ends[1] == 0 and np.allclose(ends[2:], ends[2]) and (ends[0] > 0) == (pooling != "mean")
    row = (ends @ (found - np.eye(len(found))))[2:].reshape(3, 5)
    saliency = GradientRollout(backbone, head).explain(picture(), target="c").saliency
    np.testing.assert_allclose(saliency, plain_map(row, (48, 80)), atol=1e-3)


def test_each_class_and_score_has_a_map_of_its_own(tmp_path):
    backbone, head = make("dinov2", tmp_path, (42, 70))
    explainer, reference = GradientRollout(backbone, head), torch.randn(48)
    scores = ["a", "b", "c", margin_score(head, 0), case_score("case-1", reference, "cls")]
    maps = [explainer.explain(picture(), target=score).saliency for score in scores]
    for index, one in enumerate(maps):
        assert not any(np.allclose(one, other, atol=1e-3) for other in maps[:index])
