"""BYOL: predict a slow copy's view of the same image, without negatives (Grill et al. 2020, arXiv 2006.07733)."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.functional import normalize

from medssl.pretrain.encoder import Encoder
from medssl.pretrain.objective import Objective, ViewBatch, ema_momentum, mlp, move_average


def byol_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of unit vectors `[B, P]`: 2 - 2 cos."""
    return (2 - 2 * (normalize(prediction.float(), dim=-1) * normalize(target.float(), dim=-1)).sum(-1)).mean()


class Byol(Objective):
    """An online encoder with projector and predictor, and their moving average; the online encoder is kept."""

    defaults = {"hidden": 1024, "projection": 256, "momentum": 0.99}

    def __init__(self, encoder: Encoder, options: dict) -> None:
        super().__init__(encoder, options)
        hidden, projection = self.options["hidden"], self.options["projection"]
        self.online = nn.ModuleDict({"encoder": encoder, "projector": mlp(encoder.dimension, hidden, projection)})
        self.predictor = mlp(projection, hidden, projection)
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    @property
    def kept(self) -> Encoder:
        return self.online["encoder"]

    def forward(self, views: ViewBatch, progress: float) -> dict[str, torch.Tensor]:
        pooled, _ = self.online["encoder"](views.large)
        prediction = self.predictor(self.online["projector"](pooled))
        with torch.no_grad():
            target = self.target["projector"](self.target["encoder"](views.large)[0])
        # Each view predicts the other one; the loss is the sum of both directions.
        loss = 2 * byol_loss(prediction, target.roll(len(target) // 2, 0))
        return {"loss": loss, "features": pooled.detach()}

    def after_step(self, progress: float) -> None:
        move_average(self.target, self.online, ema_momentum(self.options["momentum"], progress))
