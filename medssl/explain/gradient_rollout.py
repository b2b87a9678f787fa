"""Gradient rollout: attention that raises the score, through all blocks (Chefer, Gur & Wolf, ICCV 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medssl.backbones.backbone import Backbone
from medssl.explain.attention_maps import attention_maps, check_attention, grid_saliency, patch_grid
from medssl.explain.explainer import Explainer, Saliency, View
from medssl.heads.head import Head


def relevance(weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """R `[N, N]` of attention `[1, heads, N, N]` block by block: R + A R, A the positive part of gradient x weight."""
    total = torch.eye(weights[0].shape[-1], device=weights[0].device)
    for attention, gradient in zip(weights, gradients, strict=True):
        raised = (gradient[0] * attention[0]).clamp(min=0).mean(dim=0)
        total = total + raised @ total
    # The identity they start from is no patch's merit.
    return total - torch.eye(len(total), device=total.device)


class GradientRollout(Explainer):
    """Generic Attention-model Explainability, Chefer, Gur & Wolf, ICCV 2021, arXiv 2103.15679.

    Their rule for self-attention, with the gradient of the score. They read R's row of CLS; here a row counts by the
    score's gradient at its token, which is that row where the score reads CLS, the mean of the patches' rows where it
    reads their mean; tokens of earlier blocks count likewise. Cost: 1 forward and 1 backward; memory of one image's
    activations in all blocks, above all attention and its gradients, 2 x blocks x heads x N x N for N tokens. Raises
    BundleError for a model without global attention.
    """

    method = "gradient_rollout"
    title = "Gradient rollout"
    paper = "Chefer, Gur & Wolf, ICCV 2021, arXiv 2103.15679"

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__(backbone, head)
        check_attention(backbone, self.title)

    def saliency(self, view: View) -> Saliency:
        """The relevance of each patch to the tokens that the score reads."""
        with torch.inference_mode(False), torch.enable_grad():
            pixels = view.pixels.detach().clone().requires_grad_(True)
            encoding, weights = attention_maps(self.backbone, pixels, lambda found: found)
            view.progress(0.5)
            patches = [encoding.patches, *encoding.layers.values()]
            read = [*([] if encoding.cls is None else [encoding.cls]), *encoding.block_cls.values(), *patches]
            read += encoding.block_means.values()
            score = view.score.values(encoding).sum()
            gradients = torch.autograd.grad(score, [*read, *weights], allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            total = relevance(weights, gradients[len(read) :])
            ends = torch.zeros(len(total), device=total.device)
            means = len(read) - len(encoding.block_means)
            for number, gradient in enumerate(gradients[: len(read)]):
                norms = gradient.norm(dim=-1).flatten()
                if number >= means:  # of a mean over patches: each has its share
                    ends[self.backbone.prefix :] += norms / (len(ends) - self.backbone.prefix)
                    continue
                first = 0 if gradient.ndim == 2 else self.backbone.prefix
                ends[first : first + len(norms)] += norms
            ends /= ends.sum().clamp(min=torch.finfo(ends.dtype).tiny)
            size = view.pixels.shape[-2:]
            grid = patch_grid(ends @ total, self.backbone, size)
        view.progress(1.0)
        return grid_saliency(grid, size, 2)
