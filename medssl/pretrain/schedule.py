"""Learning rate and weight decay over a run, and which weights decay."""

from __future__ import annotations

import math

import torch
from torch import nn

NEVER_DECAYED = ("position_embeddings", "cls_token", "mask_token", "register_tokens")


def cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine as `progress` goes from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


def learning_rate(step: int, steps: int, warmup: float, peak: float, last: float) -> float:
    """Linear from 0 to `peak` over the share `warmup` of the steps, then a cosine to `last` at `steps`."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return peak * (step + 1) / rising
    return cosine(peak, last, (step - rising) / max(1, steps - rising))


def parameter_groups(model: nn.Module) -> list[dict]:
    """Two groups, `decays` true and false: biases, norms, tokens and positions never decay."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not any(word in name for word in NEVER_DECAYED)
            groups[decays].append(parameter)
    return [{"params": groups[decays], "decays": decays} for decays in (True, False) if groups[decays]]


def set_schedule(optimizer: torch.optim.Optimizer, rate: float, decay: float) -> None:
    """Give the groups their learning rate and weight decay for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["weight_decay"] = decay if group["decays"] else 0.0
