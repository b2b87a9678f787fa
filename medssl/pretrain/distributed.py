"""What a loss over a whole batch needs when the batch lies on several processes; alone, each is the identity."""

from __future__ import annotations

import torch
from torch import distributed
from torch.distributed.nn.functional import all_gather


def active() -> bool:
    """Whether there are several processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank() -> int:
    """This process's number."""
    return distributed.get_rank() if active() else 0


def world() -> int:
    """The number of processes."""
    return distributed.get_world_size() if active() else 1


def reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over processes, without gradient."""
    if active():
        tensor = tensor.clone()
        distributed.all_reduce(tensor)
    return tensor


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """All processes' rows `[world * B, ...]` in order of rank; gradients flow back to each."""
    return torch.cat(all_gather(tensor)) if active() else tensor
