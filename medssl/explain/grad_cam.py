"""Grad-CAM: channels weighted by how much they raise the score (Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

from dataclasses import replace

import torch

from medssl.backbones.backbone import Backbone, Encoding
from medssl.backbones.blocks import blocks, layer_norms
from medssl.explain.attention_maps import grid_saliency, twin
from medssl.explain.explainer import Explainer, Saliency, View
from medssl.heads.head import ClassificationHead


def leaf(tensor: torch.Tensor) -> torch.Tensor:
    """The same values as the start of a new graph: nothing before it is kept for a backward."""
    return tensor.detach().clone().requires_grad_(True)


class GradCAM(Explainer):
    """Selvaraju et al., ICCV 2017, arXiv 1610.02391.

    The channels are those of `Backbone.map_layer`, the last block's first layer norm (its patch tokens), or that of the
    last block that the reading knows; the final feature map of a model without; the patches of the block that a patch
    head reads, if it reads an earlier one. Cost: 1
    forward and 1 backward through the last block (otherwise only the backward, through pooling and head); memory of one
    forward and the last block's activations.
    """

    method = "grad_cam"
    title = "Grad-CAM"
    paper = "Selvaraju et al., ICCV 2017, arXiv 1610.02391"

    def saliency(self, view: View) -> Saliency:
        """The positive part of the channels' sum, each weighted by its mean gradient over the patches."""
        with torch.inference_mode(False), torch.enable_grad():
            encoding, features, passes = self.from_map(view)
            view.progress(0.5)
            score = view.score.values(encoding).sum()
            (gradient,) = torch.autograd.grad(score, [features], allow_unused=True, materialize_grads=True)
        if features.ndim == 3:  # tokens [1, N, D]
            rows, columns = (pixels // self.backbone.stride for pixels in view.pixels.shape[-2:])
            gradient, features = (
                tokens[:, self.backbone.prefix :].unflatten(1, (rows, columns)) for tokens in (gradient, features)
            )
        weights = gradient[0].mean(dim=(0, 1))
        grid = (features.detach()[0] @ weights).clamp(min=0)
        view.progress(1.0)
        return grid_saliency(grid, view.pixels.shape[-2:], passes)

    def from_map(self, view: View) -> tuple[Encoding, torch.Tensor, int]:
        """An encoding as a function of its features, the features, and the passes that their gradient takes."""
        layer = None if view.score.kind == "case" else self.head.layer
        if layer is not None:
            features = leaf(view.encoding.layers[layer])
            return replace(view.encoding, layers={**view.encoding.layers, layer: features}), features, 1
        if self.backbone.map_layer is None:
            features = leaf(view.encoding.patches)
            return replace(view.encoding, patches=features), features, 1
        apart = twin(self.backbone)
        kept: list[torch.Tensor] = []

        def restart(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
            kept.append(leaf(output))
            return kept[-1]

        self.first_norm(apart, view.score.kind == "case").register_forward_hook(restart)
        return apart.forward(view.pixels.clone()), kept[-1], 2

    def first_norm(self, backbone: Backbone, case: bool) -> torch.nn.Module:
        """The first norm of the last block that the score reads, so that something of it lies behind."""
        reading = self.head.reading if case or isinstance(self.head, ClassificationHead) else None
        if reading is None or any(part.block is None for part in reading.parts):
            return backbone.map_layer
        return layer_norms(blocks(backbone.model)[reading.blocks[-1] - 1])[0]
