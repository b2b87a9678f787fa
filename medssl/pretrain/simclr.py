"""SimCLR: two views of an image attract, all others repel (Chen et al. 2020, arXiv 2002.05709)."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, normalize

from medssl.pretrain.distributed import gather, rank
from medssl.pretrain.encoder import Encoder
from medssl.pretrain.objective import Objective, ViewBatch, mlp


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """Normalised temperature-scaled cross-entropy of two views' projections `[B, P]`, negatives from all processes."""
    batch = len(first)
    first, second = normalize(first.float(), dim=-1), normalize(second.float(), dim=-1)
    every = torch.cat([gather(first), gather(second)])
    own = rank() * batch + torch.arange(batch, device=first.device)
    half = len(every) // 2
    places, partners = torch.cat([own, own + half]), torch.cat([own + half, own])
    logits = torch.cat([first, second]) @ every.T / temperature
    logits[torch.arange(2 * batch, device=first.device), places] = -torch.inf
    return cross_entropy(logits, partners)


class SimCLR(Objective):
    """An encoder and a projection head; the encoder is what is kept."""

    defaults = {"hidden": 1024, "projection": 128, "temperature": 0.1}

    def __init__(self, encoder: Encoder, options: dict) -> None:
        super().__init__(encoder, options)
        self.encoder = encoder
        self.projector = mlp(encoder.dimension, self.options["hidden"], self.options["projection"], norm_out=True)

    @property
    def kept(self) -> Encoder:
        return self.encoder

    def forward(self, views: ViewBatch, progress: float) -> dict[str, torch.Tensor]:
        pooled, _ = self.encoder(views.large)
        first, second = self.projector(pooled).chunk(2)
        return {"loss": nt_xent(first, second, self.options["temperature"]), "features": pooled.detach()}
