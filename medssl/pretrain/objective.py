"""What the pretraining objectives share: views in, losses out, and which encoder is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from medssl.pretrain.encoder import Encoder


@dataclass(frozen=True)
class ViewPlan:
    """The views an objective asks for: shares of the image's area, how many small ones, and whether patches are hidden.

    There are always two large views of each image.
    """

    large_scale: tuple[float, float]
    small_scale: tuple[float, float] = (0.0, 0.0)
    small_count: int = 0
    masked: bool = False


@dataclass(frozen=True)
class ViewBatch:
    """Normalised views: `large [2B, 3, s, s]` (first all first ones), `small [nB, 3, t, t]`, bool `masks [2B, N]`.

    `answers [B, T, D]` are a teacher's, where there is one; then there is one large view of each image.
    """

    large: torch.Tensor
    small: torch.Tensor
    masks: torch.Tensor
    answers: torch.Tensor | None = None


class Objective(nn.Module):
    """A self-supervised objective around an encoder; `options` are its `defaults`, overridden by the recipe."""

    defaults: dict[str, object] = {}
    plan = ViewPlan(large_scale=(0.2, 1.0))

    def __init__(self, encoder: Encoder, options: dict) -> None:
        super().__init__()
        self.options = {**self.defaults, **options}
        if encoder.can_mask and not self.plan.masked:
            # Several processes wait for the gradient of every weight that asks for one.
            encoder.model.embeddings.mask_token.requires_grad_(False)

    @property
    def kept(self) -> Encoder:
        """The encoder that is saved at the end."""
        raise NotImplementedError

    def forward(self, views: ViewBatch, progress: float) -> dict[str, torch.Tensor]:
        """`loss`, its parts, facts worth watching, and `features [N, D]`; `progress` is the share of the run."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """What follows an optimiser step; nothing by default."""


def mlp(dimension: int, hidden: int, out: int, norm_out: bool = False) -> nn.Sequential:
    """The projection MLP of SimCLR and BYOL: linear, batch norm, ReLU, linear (and a last batch norm)."""
    layers = [nn.Linear(dimension, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)]
    return nn.Sequential(*layers, *([nn.BatchNorm1d(out, affine=False)] if norm_out else []))


def ema_momentum(start: float, progress: float) -> float:
    """The momentum of a moving average: from `start` to 1 along a cosine over `progress` 0 to 1."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


@torch.no_grad()
def move_average(average: nn.Module, model: nn.Module, momentum: float) -> None:
    """Parameters of `average` move towards those of `model`; buffers are copied."""
    for kept, given in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(given, 1 - momentum)
    for kept, given in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(given)
