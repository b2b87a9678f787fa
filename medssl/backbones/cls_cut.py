"""What of a transformer's last block only serves tokens that nobody reads when CLS alone is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

PROJECTION = "o_proj"  # of attention's answers, as transformers names it
# How far CLS may differ from the whole block's, against its largest number: rounding, and nothing more.
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class ClsCut:
    """Where a last block is cut to CLS: what goes into attention's projection, and what comes out of the second norm.

    Neither the projection nor the MLP mixes tokens. The sums in between repeat CLS's part for every token, which leaves
    CLS as it is and makes of the others what nobody may read.
    """

    norm: torch.nn.Module
    projection: torch.nn.Module | None = None

    @classmethod
    def of(cls, block: torch.nn.Module, norms: list[torch.nn.Module]) -> ClsCut | None:
        """The cut of a block with these layer norms, or None for a block of another build."""
        if len(norms) != 2:
            return None
        found = [module for name, module in block.named_modules() if name.split(".")[-1] == PROJECTION]
        return cls(norms[1], found[0] if len(found) == 1 else None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The block is cut in this thread while inside."""
        owner = threading.get_ident()

        def cut_output(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor | None:
            return output[:, :1] if threading.get_ident() == owner else None

        def cut_input(_module: torch.nn.Module, inputs: tuple) -> tuple | None:
            return (inputs[0][:, :1], *inputs[1:]) if threading.get_ident() == owner else None

        handles = [self.norm.register_forward_hook(cut_output)]
        if self.projection is not None:
            handles.append(self.projection.register_forward_pre_hook(cut_input))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def same(whole: torch.Tensor, cut: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether two CLS tokens `[B, D]` are equal but for rounding in that type of number."""
    return bool((whole - cut).abs().max() <= ROUNDING[dtype] * whole.abs().max())
