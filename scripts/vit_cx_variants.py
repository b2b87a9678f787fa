"""ViT-CX otherwise than published: each variant an explainer of its own, for `benchmark.py variants` alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from medssl.explain import ViTCX, make_explainer
from medssl.explain.attention_maps import attention_maps, patch_grid
from medssl.explain.causal_masks import causal_masks
from medssl.explain.explainer import Explainer, Saliency, View
from medssl.explain.explanation import Explanation
from medssl.explain.faithfulness import blur
from medssl.explain.score import margin_score

LAST_BLOCKS = 3
SCALE = 2


class FullNoise(ViTCX):
    """As published: 2N forwards."""

    method, title = "full", "noise term by N more forwards"

    def saliency(self, view: View, **options: Any) -> Saliency:  # noqa: ANN401
        """The map with the noise term as published."""
        return super().saliency(view, noise="full", **options)


class NoNoiseTerm(ViTCX):
    """Noise is put in, its effect is not taken out."""

    method, title = "none", "no noise term"

    def saliency(self, view: View, **options: Any) -> Saliency:  # noqa: ANN401
        """The map without the noise term."""
        return super().saliency(view, noise="none", **options)


class Margin(ViTCX):
    """Explains the lead over the strongest rival."""

    method, title = "margin", "margin to the runner-up"

    def saliency(self, view: View, **options: Any) -> Saliency:  # noqa: ANN401
        """The map of the margin."""
        score = margin_score(self.head, self.head.labels.index(view.score.name))
        return super().saliency(replace(view, score=score, value=float(score.values(view.encoding)[0])), **options)


class Blurred(ViTCX):
    """Shows the blurred image where a mask hides it, instead of noise."""

    method, title = "blur", "blur instead of noise"

    def impacts(self, view: View, masks: torch.Tensor, *_: Any) -> tuple[torch.Tensor, int]:  # noqa: ANN401
        """The score of each mask's mixture of image and blur."""
        mask = masks[:, None]
        return self.scores(view.score, view.pixels * mask + blur(view.pixels) * (1 - mask)), len(masks)


class SeveralLayers(ViTCX):
    """Masks from the tokens of the last blocks, not of the last one alone."""

    method, title = "layers", f"feature maps of the last {LAST_BLOCKS} blocks"

    def masks(self, view: View, distance_threshold: float, max_masks: int | None) -> torch.Tensor:
        """Masks from all of these channels together."""
        depth = self.backbone.model.config.num_hidden_layers
        reader = self.backbone.reading(*range(max(1, depth - LAST_BLOCKS + 1), depth))
        with torch.no_grad():
            layers = reader.forward(view.pixels).layers
        found = [torch.nn.functional.layer_norm(tokens, tokens.shape[-1:]) for tokens in layers.values()]
        maps = torch.cat([view.encoding.maps, *found], dim=-1)[0].permute(2, 0, 1)
        return causal_masks(maps, tuple(view.pixels.shape[-2:]), distance_threshold, max_masks)


class TwiceTheSize(ViTCX):
    """The same head over an input of twice the side, so that masks have four times the cells."""

    method, title = "twice", "input at twice the side"

    def explain(self, image: Image.Image, target: Any = None, seed: int = 0, **options: Any) -> Explanation:  # noqa: ANN401
        """The map at twice the side, brought back to the model's own frame."""
        head = copy.copy(self.head)
        height, width = head.preprocess.size
        head.preprocess = replace(head.preprocess, size=(SCALE * height, SCALE * width))
        found = ViTCX(self.backbone, head).explain(image, target, seed, **options)
        small = Image.fromarray(found.saliency).resize((width, height), Image.Resampling.BOX)
        return replace(found, method=self.method, saliency=np.asarray(small, np.float32))


class Selected(ViTCX):
    """Keeps the half of the masks that shows most of what `relevance` names."""

    def relevance(self, view: View) -> torch.Tensor:
        """What matters, `[h, w]` in the model's frame."""
        raise NotImplementedError

    def masks(self, view: View, distance_threshold: float, max_masks: int | None) -> torch.Tensor:
        """The better half of the masks."""
        masks = super().masks(view, distance_threshold, max_masks)
        shown = torch.einsum("nhw,hw->n", masks, self.relevance(view)) / masks.sum(dim=(1, 2)).clamp(min=1e-8)
        return masks[shown.argsort(descending=True)[: max(2, len(masks) // 2)].sort().values]


class AttentionSelected(Selected):
    """Selection by the attention of CLS in the last block."""

    method, title = "cls_selected", "half of the masks, by CLS's attention"

    @torch.no_grad()
    def relevance(self, view: View) -> torch.Tensor:
        """The last block's attention of CLS, mean over heads."""
        _, weights = attention_maps(self.backbone, view.pixels, lambda found: found[0, :, 0].mean(dim=0))
        size = view.pixels.shape[-2:]
        grid = patch_grid(weights[-1], self.backbone, size)
        return torch.nn.functional.interpolate(grid[None, None], tuple(size), mode="bilinear")[0, 0]


class HeadSelected(Selected):
    """Selection by the score's own gradient."""

    method, title = "head_selected", "half of the masks, by Grad-CAM"

    def relevance(self, view: View) -> torch.Tensor:
        """The Grad-CAM map of the score."""
        quiet = replace(view, progress=lambda _fraction: None)
        return torch.from_numpy(make_explainer("grad_cam", self.backbone, self.head).saliency(quiet).values)


VARIANTS: tuple[type[Explainer], ...] = (
    FullNoise,
    NoNoiseTerm,
    Margin,
    Blurred,
    SeveralLayers,
    TwiceTheSize,
    AttentionSelected,
    HeadSelected,
)
