"""Attention rollout: from which patches attention flows to the embedding (Abnar & Zuidema, ACL 2020)."""

from __future__ import annotations

import torch

from medssl.backbones.backbone import Backbone
from medssl.backbones.reading import CLS, MEAN, Part
from medssl.explain.attention_maps import attention_maps, check_attention, grid_saliency, patch_grid
from medssl.explain.explainer import Explainer, Saliency, View
from medssl.heads.head import ClassificationHead, Head

RESIDUAL = 0.5  # the share of the skip connection around each attention, their section 3


def rollout(weights: list[torch.Tensor]) -> torch.Tensor:
    """The product over blocks of head-averaged attention `[N, N]`, each half residual, rows summing to 1."""
    skip = torch.eye(len(weights[0]), device=weights[0].device)
    flow = skip
    for attention in weights:
        mixed = (1 - RESIDUAL) * attention + RESIDUAL * skip
        flow = (mixed / mixed.sum(dim=-1, keepdim=True)) @ flow
    return flow


class AttentionRollout(Explainer):
    """Abnar & Zuidema, ACL 2020, arXiv 2005.00928. Class-agnostic: the same map whatever is asked for.

    It never reads the score, so `evidence` only says that the map has contrast. The flow ends in the tokens that the
    head reads, in each block that it reads: CLS, the mean over patches. Cost: 1 forward, no gradients; memory of that
    forward and blocks x N x N for N tokens. Raises BundleError for a model without global attention.
    """

    method = "attention_rollout"
    title = "Attention rollout (class-agnostic)"
    paper = "Abnar & Zuidema, ACL 2020, arXiv 2005.00928"
    caution = "It is the same map for every class: where attention flows, not what speaks for a class."
    explains_cases = False

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__(backbone, head)
        check_attention(backbone, self.title)

    @torch.no_grad()
    def saliency(self, view: View) -> Saliency:
        """The flow from each patch to the tokens that the head reads, up to the block that it reads."""
        _, weights = attention_maps(self.backbone, view.pixels, lambda found: found[0].mean(dim=0))
        # A head of another kind reads patches, whatever its library pools.
        own = isinstance(self.head, ClassificationHead)
        parts = self.head.reading.parts if own else (Part(MEAN, self.head.layer),)
        flows = {block: rollout(weights[:block]) for block in {part.block for part in parts}}
        row = sum(
            flows[part.block][0] if part.token == CLS else flows[part.block][self.backbone.prefix :].mean(dim=0)
            for part in parts
        )
        size = view.pixels.shape[-2:]
        view.progress(1.0)
        return grid_saliency(patch_grid(row, self.backbone, size), size, 1)
