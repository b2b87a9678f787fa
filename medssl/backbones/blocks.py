"""The blocks of a transformer and what passes between them: found by structure, read by hooks."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import torch

from medssl.errors import BackboneError


@contextmanager
def captured(layer: torch.nn.Module):  # noqa: ANN201
    """Collect a layer's outputs in this thread while inside; the hook is gone afterwards, also after an error."""
    kept: list[torch.Tensor] = []
    owner = threading.get_ident()

    def keep(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor | tuple) -> None:
        if threading.get_ident() == owner:
            kept.append(output[0] if isinstance(output, tuple) else output)

    handle = layer.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


@contextmanager
def first_token_only(layer: torch.nn.Module | None):  # noqa: ANN201
    """Cut a layer's output `[B, N, D]` to its first token in this thread while inside; nothing is done for None."""
    if layer is None:
        yield
        return
    owner = threading.get_ident()
    handle = layer.register_forward_hook(
        lambda _module, _inputs, output: output[:, :1] if threading.get_ident() == owner else None
    )
    try:
        yield
    finally:
        handle.remove()


def layer_norms(block: torch.nn.Module) -> list[torch.nn.Module]:
    """The layer norms inside a block, in order."""
    return [m for m in block.modules() if isinstance(m, torch.nn.LayerNorm) or type(m).__name__.endswith("RMSNorm")]


def blocks(model: torch.nn.Module) -> torch.nn.ModuleList:
    """The transformer blocks, in order. Raises BackboneError when there are none with a layer norm."""
    depth = getattr(model.config, "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth and layer_norms(module[-1]):
            return module
    raise BackboneError(f"No layer norm found in the last of {depth} blocks of {type(model).__name__}.")


def block_norms(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The layer norms inside the last transformer block, in order. Raises BackboneError when there is none."""
    return layer_norms(blocks(model)[-1])


def norm_between(model: torch.nn.Module, last: torch.Tensor, final: torch.Tensor) -> str | None:
    """The name of the norm that makes the final tokens `[B, N, D]` of those after the last block; None for none.

    "" where they are the same.
    """
    if torch.equal(last, final):
        return ""
    inside = {id(module) for module in blocks(model).modules()}
    for name, module in model.named_modules():
        fits = getattr(module, "normalized_shape", None) == (last.shape[-1],) and id(module) not in inside
        if fits and torch.allclose(module(last), final, rtol=1e-4, atol=1e-5):
            return name
    return None
