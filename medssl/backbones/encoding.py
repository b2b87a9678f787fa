"""All that a backbone says of a batch of images."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from medssl.errors import BackboneError

POOLINGS = ("cls", "mean", "cls+mean")


@dataclass(frozen=True)
class Encoding:
    """All a backbone says of a batch, float32.

    `cls [B, D]` (None for a model without such a token), `patches [B, h, w, D]` (CLS, distillation and register tokens
    excluded), and `maps [B, h, w, C]`: the last block's first layer norm, or the final feature map (what ViT-CX masks
    are made of; None unless asked for). `layers` holds the patches of the blocks a `Backbone.reading` was asked for.
    """

    cls: torch.Tensor | None
    patches: torch.Tensor
    maps: torch.Tensor | None = None
    layers: dict[int, torch.Tensor] = field(default_factory=dict)

    def cpu(self) -> Encoding:
        """The same on the CPU."""
        cls, maps = (None if part is None else part.cpu() for part in (self.cls, self.maps))
        return Encoding(cls, self.patches.cpu(), maps, {layer: part.cpu() for layer, part in self.layers.items()})

    def pool(self, pooling: str) -> torch.Tensor:
        """The embeddings `[B, D]` (`[B, 2D]` for "cls+mean"). Raises BackboneError for a pooling that cannot be."""
        check_pooling(pooling, self.cls is not None)
        parts = {"cls": self.cls, "mean": self.patches.mean(dim=(1, 2))}
        return torch.cat([parts[name] for name in pooling.split("+")], dim=-1)


def check_pooling(pooling: str, has_cls: bool) -> None:
    """Raises BackboneError unless the pooling is known and the model has what it needs."""
    if pooling not in POOLINGS:
        raise BackboneError(f"Unknown pooling {pooling!r}. Allowed: {', '.join(POOLINGS)}.")
    if "cls" in pooling and not has_cls:
        raise BackboneError(f"Pooling {pooling!r} needs a CLS token and this backbone has none. Use pooling 'mean'.")
