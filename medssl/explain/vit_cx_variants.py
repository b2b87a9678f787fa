"""ViT-CX otherwise than published, in the three ways that were once measured to be more faithful on some task.

Each won beyond the interval of insertion minus deletion on some validation splits of 20 pictures. On 60, with two
encoders, three blocks win on none of eight, twice the side on one, and blur on three, by a metric that itself starts
from blur (docs/explainers.md). Two of them cost more. So none is the default.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import layer_norm

from medssl.backbones.backbone import Backbone, Encoding, blocks
from medssl.errors import BackboneError, BundleError
from medssl.explain.causal_masks import causal_masks
from medssl.explain.explainer import Progress, Saliency, View
from medssl.explain.explanation import Explanation
from medssl.explain.faithfulness import blur
from medssl.explain.score import Score, as_score
from medssl.explain.vit_cx import ViTCX
from medssl.heads.head import Head
from medssl.library.library import Case

LAST_BLOCKS = 3
SCALE = 2


class BlurredViTCX(ViTCX):
    """Where a mask hides the image, shows it blurred instead of noise, and so needs no noise term.

    Cost for N masks, beside 1 forward for the feature maps: N forwards.
    """

    method, title = "vit_cx_blur", "ViT-CX, blur instead of noise"
    paper = f"after {ViTCX.paper}"

    def saliency(self, view: View, noise: str = "none", **options: Any) -> Saliency:  # noqa: ANN401
        """As of ViT-CX; there is no noise whose effect had to be taken off."""
        return super().saliency(view, noise, **options)

    def impacts(
        self, view: View, masks: torch.Tensor, _noise: str, batch_size: int | None, low_precision: bool
    ) -> tuple[torch.Tensor, int]:
        """The score `[N]` of each mixture of image and blur, and the forward passes that took."""
        batch = batch_size or self.backbone.batch_size(self.head.preprocess)
        blurred, found = blur(view.pixels), []
        for part in masks[:, None].split(batch):
            found.append(self.scores(view.score, view.pixels * part + blurred * (1 - part), batch, low_precision))
            view.progress(min(1.0, sum(map(len, found)) / len(masks)))
        return torch.cat(found), len(masks)


class LayersViTCX(ViTCX):
    """Masks from the tokens of the last three blocks, not of the last one alone.

    Cost as of ViT-CX with more masks, and 1 forward for the other blocks. Raises BundleError for a backbone without
    blocks of tokens.
    """

    method, title = "vit_cx_layers", f"ViT-CX, maps of the last {LAST_BLOCKS} blocks"
    paper = f"after {ViTCX.paper}"

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__(backbone, head)
        try:
            self.depth = len(blocks(backbone.model)) if backbone.has_cls else 0
        except BackboneError:
            self.depth = 0
        if not self.depth:
            raise BundleError(f"{self.title} needs blocks of tokens; backbone {backbone.id!r} has none. Use vit_cx.")

    def masks(self, view: View, distance_threshold: float, max_masks: int | None) -> torch.Tensor:
        """Masks `[N, h, w]` from the channels of these blocks together."""
        reader = self.backbone.reading(*range(max(1, self.depth - LAST_BLOCKS + 1), self.depth))
        with torch.no_grad():
            layers = reader.forward(view.pixels).layers
        found = [layer_norm(tokens, tokens.shape[-1:]) for tokens in layers.values()]
        maps = torch.cat([view.encoding.maps, *found], dim=-1)[0].permute(2, 0, 1)
        return causal_masks(maps, tuple(view.pixels.shape[-2:]), distance_threshold, max_masks)


class LargeViTCX(ViTCX):
    """The same head over an input of twice the side, so that masks have four times the cells.

    Cost: that of ViT-CX on four times the pixels, about five times the seconds. What it explains is the head's score of
    that larger input; the probability it states is that of the usual one.
    """

    method, title = "vit_cx_large", "ViT-CX, input at twice the side"
    paper = f"after {ViTCX.paper}"

    def explain(
        self,
        image: Image.Image,
        target: str | int | Case | Score | None = None,
        seed: int = 0,
        encoding: Encoding | None = None,
        progress: Progress | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Explanation:
        """As of every explainer; the saliency is brought back to the model's usual frame."""
        passes = 0
        if encoding is None:
            encoding, passes = self.backbone.encode([image], self.head.preprocess, maps=False), 1
        score = as_score(self.head, target, self.head.classify(encoding)[0])
        head = copy.copy(self.head)
        height, width = head.preprocess.size
        head.preprocess = head.preprocess.scaled(SCALE)
        found = ViTCX(self.backbone, head).explain(image, score, seed, progress=progress, **options)
        small = Image.fromarray(found.saliency).resize((width, height), Image.Resampling.BOX)
        return replace(
            found,
            method=self.method,
            saliency=np.asarray(small, np.float32),
            probability=float(score.values(encoding)[0]),
            forward_passes=passes + found.forward_passes,
        )
