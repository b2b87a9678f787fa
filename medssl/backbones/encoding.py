"""All that a backbone says of a batch of images."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from medssl.backbones.reading import CLS, MEAN, Reading
from medssl.errors import BackboneError


@dataclass(frozen=True)
class Encoding:
    """All a backbone says of a batch, float32.

    `cls [B, D]` (None for a model without such a token), `patches [B, h, w, D]` (CLS, distillation and register tokens
    excluded), and `maps [B, h, w, C]`: the last block's first layer norm, or the final feature map (what ViT-CX masks
    are made of; None unless asked for). `layers` holds the patches of the blocks a `Backbone.reading` was asked for,
    `block_cls [B, D]` and `block_means [B, D]` CLS and patch mean, after the final norm, of those that a
    `Backbone.pooled` reads.
    """

    cls: torch.Tensor | None
    patches: torch.Tensor
    maps: torch.Tensor | None = None
    layers: dict[int, torch.Tensor] = field(default_factory=dict)
    block_cls: dict[int, torch.Tensor] = field(default_factory=dict)
    block_means: dict[int, torch.Tensor] = field(default_factory=dict)

    def cpu(self) -> Encoding:
        """The same on the CPU."""
        cls, maps = (None if part is None else part.cpu() for part in (self.cls, self.maps))
        layers, block_cls, block_means = (
            {block: part.cpu() for block, part in parts.items()}
            for parts in (self.layers, self.block_cls, self.block_means)
        )
        return Encoding(cls, self.patches.cpu(), maps, layers, block_cls, block_means)

    def single(self, index: int) -> Encoding:
        """What is said of one image, as an encoding of its own that keeps none of the others in memory."""

        def one(part: torch.Tensor) -> torch.Tensor:
            return part[index : index + 1].clone()

        cls, maps = (None if part is None else one(part) for part in (self.cls, self.maps))
        layers, block_cls, block_means = (
            {block: one(part) for block, part in parts.items()}
            for parts in (self.layers, self.block_cls, self.block_means)
        )
        return Encoding(cls, one(self.patches), maps, layers, block_cls, block_means)

    def pool(self, pooling: str | Reading) -> torch.Tensor:
        """The embeddings `[B, D]` of a reading; D is the model's width times its parts.

        Raises BackboneError for a reading that this encoding lacks a part of.
        """
        reading = Reading.parse(pooling) if isinstance(pooling, str) else pooling
        reading.check(self.cls is not None)
        lacking = sorted(set(reading.blocks) - set(self.block_cls))
        if lacking:
            raise BackboneError(
                f"Pooling {reading.pooling!r} reads block {', '.join(map(str, lacking))}, which this encoding does not "
                f"hold. Encode with backbone.pooled({reading.pooling!r})."
            )
        final = {CLS: self.cls, MEAN: self.patches.mean(dim=(1, 2))}
        parts = []
        for part in reading.parts:
            of_block = self.block_cls if part.token == CLS else self.block_means
            parts.append(final[part.token] if part.block is None else of_block[part.block])
        return torch.cat(parts, dim=-1)
