"""The teacher of a distillation: a frozen backbone, and which of its tokens a student learns to give."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import adaptive_avg_pool2d

from medssl.backbones.backbone import Backbone, blocks, captured
from medssl.errors import PretrainError


def block_numbers(text: str, depth: int) -> tuple[int, ...]:
    """The blocks of "9,12", in order. Raises PretrainError for one that a teacher of that depth has not."""
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        numbers = (0,)
    if not 1 <= numbers[0] <= numbers[-1] <= depth:
        raise PretrainError(f"The teacher's blocks are {text!r}; allowed: numbers from 1 to {depth}, as in '9,12'.")
    return numbers


@dataclass(frozen=True)
class Teacher:
    """A frozen backbone with the blocks whose CLS token, and those whose patch grid, are answers.

    Tokens go through the backbone's final norm, as DINOv2's `get_intermediate_layers(norm=True)` gives them. A
    convolutional backbone answers with the mean of its final map and with the map; its blocks are empty.
    """

    backbone: Backbone
    cls_blocks: tuple[int, ...]
    patch_blocks: tuple[int, ...]

    @classmethod
    def load(cls, name: str | Path, cls_blocks: str = "", patch_blocks: str = "") -> Teacher:
        """A registry name, Hub id or folder; by default the blocks at three quarters of its depth and the last (CLS),
        and the one at three quarters (patches).

        Raises BackboneError, and PretrainError for blocks that there are not.
        """
        backbone = Backbone.from_pretrained(name)
        if not backbone.has_cls:
            if cls_blocks or patch_blocks:
                raise PretrainError(f"The teacher {backbone.id!r} has no transformer blocks; leave them out.")
            return cls(backbone, (), ())
        depth = len(blocks(backbone.model))
        middle = max(1, round(depth * 0.75))
        return cls(
            backbone,
            block_numbers(cls_blocks or f"{middle},{depth}", depth),
            block_numbers(patch_blocks or f"{middle}", depth),
        )

    @property
    def cls_count(self) -> int:
        """How many vectors it gives of a whole picture."""
        return max(1, len(self.cls_blocks))

    @property
    def patch_count(self) -> int:
        """How many grids of vectors it gives."""
        return max(1, len(self.patch_blocks))

    def describe(self) -> dict:
        """What decides its answers, in plain JSON types."""
        return {
            **self.backbone.describe(),
            "cls_blocks": list(self.cls_blocks),
            "patch_blocks": list(self.patch_blocks),
        }

    @torch.inference_mode()
    def grid(self, side: int) -> tuple[int, int]:
        """Rows and columns of its patches of a square picture of that side in pixels."""
        if self.backbone.stride:
            return side // self.backbone.stride, side // self.backbone.stride
        rows, columns = self.backbone.forward(torch.zeros(1, 3, side, side)).patches.shape[1:3]
        return rows, columns

    @torch.inference_mode()
    def answer(self, pixels: torch.Tensor) -> torch.Tensor:
        """Its answers `[B, cls_count + patch_count * h * w, D]` to normalised pixels, over its own grid (h, w).

        CLS tokens come first, then one grid after the other, row by row.
        """
        backbone = self.backbone
        if not backbone.has_cls:
            patches = backbone.forward(pixels).patches
            return torch.cat([patches.mean((1, 2))[:, None], patches.flatten(1, 2)], 1)
        wanted = sorted({*self.cls_blocks, *self.patch_blocks})
        with ExitStack() as stack:
            outputs = {block: stack.enter_context(captured(blocks(backbone.model)[block - 1])) for block in wanted}
            backbone.forward(pixels)
        norm = getattr(backbone.model, "layernorm", None) or torch.nn.Identity()
        tokens = {block: norm(kept[-1]) for block, kept in outputs.items()}
        firsts = torch.stack([tokens[block][:, 0] for block in self.cls_blocks], 1)
        return torch.cat([firsts, *(tokens[block][:, backbone.prefix :] for block in self.patch_blocks)], 1)


def regrid(tokens: torch.Tensor, cls_count: int, grid: tuple[int, int], wanted: tuple[int, int]) -> torch.Tensor:
    """Answers `[B, T, D]` whose grids (h, w) are averaged to others; vectors of whole pictures stay as they are."""
    if grid == wanted:
        return tokens
    grids = tokens[:, cls_count:].unflatten(1, (-1, *grid)).permute(0, 1, 4, 2, 3)
    averaged = adaptive_avg_pool2d(grids.flatten(0, 1).float(), wanted).flatten(2).transpose(1, 2)
    return torch.cat([tokens[:, :cls_count].float(), averaged.unflatten(0, grids.shape[:2]).flatten(1, 2)], 1)
