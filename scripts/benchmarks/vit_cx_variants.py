"""ViT-CX otherwise than published: those of the package that won somewhere, and those that did not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from medssl.backbones.backbone import blocks
from medssl.explain import ViTCX, make_explainer
from medssl.explain.attention_maps import attention_maps, patch_grid
from medssl.explain.causal_masks import causal_masks
from medssl.explain.explainer import Explainer, Saliency, View
from medssl.explain.score import margin_score
from medssl.explain.vit_cx_variants import BlurredViTCX, LargeViTCX, LayersViTCX

CENTERED_MASKS = 40  # without a bound there are about twice as many


class FirstOrderNoise(ViTCX):
    """The noise term by gradients: N + 3 passes."""

    method, title = "first_order", "noise term by gradients"

    def saliency(self, view: View, **options: Any) -> Saliency:  # noqa: ANN401
        """The map with the noise term by gradients."""
        return super().saliency(view, noise="first_order", **options)


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


class CenteredMasks(ViTCX):
    """A channel's mask shows where the channel is above its own mean, not all but its lowest place."""

    method, title = "centered", "masks centered per channel"

    def saliency(self, view: View, **options: Any) -> Saliency:  # noqa: ANN401
        """The map of at most CENTERED_MASKS masks."""
        return super().saliency(view, **{"max_masks": CENTERED_MASKS, **options})

    def masks(self, view: View, distance_threshold: float, max_masks: int | None) -> torch.Tensor:
        """Masks of the part of each feature map that lies above its mean."""
        maps = view.encoding.maps[0].permute(2, 0, 1)
        above = (maps - maps.mean(dim=(1, 2), keepdim=True)).clamp(min=0)
        return causal_masks(above, tuple(view.pixels.shape[-2:]), distance_threshold, max_masks)


class SmallMasks(ViTCX):
    """Each mask to the fourth power: only near its maximum is much of the image shown."""

    method, title = "small", "smaller masks (fourth power)"

    def masks(self, view: View, distance_threshold: float, max_masks: int | None) -> torch.Tensor:
        """The masks, smaller."""
        return super().masks(view, distance_threshold, max_masks) ** 4


class SmallBlurred(SmallMasks, BlurredViTCX):
    """Smaller masks, and blur in place of noise."""

    method, title = "small_blur", "smaller masks, blur instead of noise"


class CenteredBlurred(CenteredMasks, BlurredViTCX):
    """Masks centered per channel, and blur in place of noise."""

    method, title = "centered_blur", "masks centered per channel, blur instead of noise"


class FewMasks(ViTCX):
    """At most 20 masks."""

    method, title = "few", "at most 20 masks"

    def saliency(self, view: View, **options: Any) -> Saliency:  # noqa: ANN401
        """The map of fewer masks."""
        return super().saliency(view, **{"max_masks": 20, **options})


class EarlierBlock(ViTCX):
    """Masks from the tokens of the block at three quarters of the depth."""

    method, title = "earlier", "masks of the block at three quarters of the depth"

    def masks(self, view: View, distance_threshold: float, max_masks: int | None) -> torch.Tensor:
        """Masks from the channels of that block."""
        block = 3 * len(blocks(self.backbone.model)) // 4
        with torch.no_grad():
            tokens = self.backbone.reading(block).forward(view.pixels).layers[block]
        maps = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])[0].permute(2, 0, 1)
        return causal_masks(maps, tuple(view.pixels.shape[-2:]), distance_threshold, max_masks)


VARIANTS: tuple[type[Explainer], ...] = (
    FirstOrderNoise,
    NoNoiseTerm,
    Margin,
    BlurredViTCX,
    LayersViTCX,
    LargeViTCX,
    AttentionSelected,
    HeadSelected,
    CenteredMasks,
    SmallMasks,
    SmallBlurred,
    CenteredBlurred,
    FewMasks,
    EarlierBlock,
)
