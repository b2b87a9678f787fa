"""What a transformer's blocks attend to, read off a twin of the model so that the model itself stays as it is."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from transformers import PretrainedConfig

from medssl.backbones.backbone import Backbone, Encoding, blocks
from medssl.errors import BackboneError, BundleError
from medssl.explain.explainer import Saliency

# Below this share of its largest value a map's contrast is rounding.
CONTRAST = 1e-6


def twin(backbone: Backbone, attention: str | None = None) -> Backbone:
    """The backbone with modules and a config of its own over the same weights, for hooks or another `attention`.

    Other threads may use the original meanwhile; it is not touched.
    """
    config = copy.copy(backbone.model.config)
    if attention is not None:
        config._attn_implementation = attention
    made: dict[int, torch.nn.Module] = {}

    def double(module: torch.nn.Module) -> torch.nn.Module:
        if id(module) not in made:
            made[id(module)] = found = copy.copy(module)
            children = {name: child and double(child) for name, child in module._modules.items()}
            vars(found).update(
                _modules=children,
                _forward_hooks=OrderedDict(),
                _forward_hooks_with_kwargs=OrderedDict(),
                _forward_hooks_always_called=OrderedDict(),
            )
            if isinstance(vars(found).get("config"), PretrainedConfig):
                found.config = config
        return made[id(module)]

    view = copy.copy(backbone)
    view.model = double(backbone.model)
    view.map_layer = made.get(id(backbone.map_layer))
    return view


def attends_globally(backbone: Backbone) -> bool:
    """Whether every block lets each patch attend to all others, by the model's build: no forward is made."""
    if not backbone.stride or getattr(backbone.model.config, "depths", None):
        return False
    try:
        found = blocks(backbone.model)
    except BackboneError:
        return False
    return all(attention_modules(block) for block in found)


def attention_modules(block: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules of a block that compute attention, by their class's name."""
    return [module for module in block.modules() if "Attention" in type(module).__name__]


def check_attention(backbone: Backbone, title: str) -> None:
    """Raises BundleError, naming what to use instead, unless the model attends globally."""
    if not attends_globally(backbone):
        raise BundleError(
            f"{title} needs attention from every patch to every other, and backbone {backbone.id!r} has none "
            "(a convolutional model, or attention inside windows). Use vit_cx, grad_cam, occlusion or rise."
        )


def attention_maps(
    backbone: Backbone, pixels: torch.Tensor, keep: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[Encoding, list[torch.Tensor]]:
    """One forward of `[1, 3, h, w]`: its encoding, and `keep(weights [1, heads, N, N])` of each block in order.

    Raises BundleError for a model that does not hand out such weights.
    """
    view = twin(backbone, "eager")
    kept: dict[int, torch.Tensor] = {}
    tokens = backbone.prefix + (pixels.shape[-2] // backbone.stride) * (pixels.shape[-1] // backbone.stride)

    def hook(number: int) -> Callable:
        def collect(_module: torch.nn.Module, _inputs: tuple, output: tuple) -> None:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if isinstance(weights, torch.Tensor) and weights.ndim == 4 and weights.shape[-2:] == (tokens, tokens):
                kept.setdefault(number, keep(weights))

        return collect

    found = blocks(view.model)
    for number, block in enumerate(found):
        for module in attention_modules(block):
            module.register_forward_hook(hook(number))
    encoding = view.forward(pixels)
    if len(kept) != len(found):
        raise BundleError(
            f"Backbone {backbone.id!r} hands out the attention of {len(kept)} of its {len(found)} blocks. "
            "Use vit_cx, grad_cam, occlusion or rise."
        )
    return encoding, [kept[number] for number in range(len(found))]


def patch_grid(tokens: torch.Tensor, backbone: Backbone, size: torch.Size) -> torch.Tensor:
    """The patches `[h, w]` of one number per token `[N]`: CLS, distillation and register tokens left out."""
    rows, columns = (pixels // backbone.stride for pixels in size)
    return tokens[backbone.prefix :].unflatten(0, (rows, columns))


def grid_saliency(grid: torch.Tensor, size: torch.Size, forward_passes: int) -> Saliency:
    """A map `[h, w]` of patches as Saliency: upsampled bilinearly to the pixels `size`, its largest value made 1.

    There is no evidence in a map without contrast.
    """
    grid = grid.detach().double().cpu()
    top = float(grid.abs().max())
    if not np.isfinite(top) or float(grid.max() - grid.min()) <= CONTRAST * top:
        return Saliency(np.zeros(tuple(size), np.float32), 0, forward_passes, False)
    values = torch.nn.functional.interpolate((grid / top)[None, None], tuple(size), mode="bilinear")[0, 0]
    return Saliency(values.float().numpy(), 0, forward_passes, True)
