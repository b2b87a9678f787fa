"""Attention rollout: from which patches attention flows to the embedding (Abnar & Zuidema, ACL 2020)."""

from __future__ import annotations

import torch

from medssl.backbones.backbone import Backbone
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
    head reads: CLS, the mean over patches, or both. Cost: 1 forward, no gradients; memory of that forward and
    blocks x N x N for N tokens. Raises BundleError for a model without global attention.
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
        flow = rollout(weights[: self.head.layer])
        rows = {"cls": flow[0], "mean": flow[self.backbone.prefix :].mean(dim=0)}
        # A head of another kind reads patches, whatever its library pools.
        pooling = self.head.pooling if isinstance(self.head, ClassificationHead) else "mean"
        row = sum(rows[name] for name in pooling.split("+"))
        size = view.pixels.shape[-2:]
        view.progress(1.0)
        return grid_saliency(patch_grid(row, self.backbone, size), size, 1)
