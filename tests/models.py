"""Small random checkpoints of every family, saved as real transformers folders."""

from pathlib import Path

import torch
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}

FAMILIES = {
    "dinov2": (Dinov2Model, Dinov2Config(patch_size=14, image_size=56, **SMALL)),
    "dinov2-registers": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig(patch_size=14, image_size=56, num_register_tokens=4, **SMALL),
    ),
    "vit": (ViTModel, ViTConfig(patch_size=16, image_size=64, **SMALL)),
    "deit": (DeiTModel, DeiTConfig(patch_size=16, image_size=64, **SMALL)),
    "mae": (ViTMAEModel, ViTMAEConfig(patch_size=16, image_size=64, **SMALL)),
    "resnet": (ResNetModel, ResNetConfig(embedding_size=16, layer_type="basic", **STAGES)),
    "convnext": (ConvNextModel, ConvNextConfig(image_size=64, **STAGES)),
    "swin": (
        SwinModel,
        SwinConfig(embed_dim=16, depths=[1, 1, 1], num_heads=[2, 2, 4], window_size=4, image_size=64),
    ),
}
PREFIX_TOKENS = {"dinov2": 1, "dinov2-registers": 5, "vit": 1, "deit": 2, "mae": 1, "swin": 0}


def save_model(family: str, folder: Path, seed: int = 0) -> Path:
    """Save a small random checkpoint; weights are spread so that different images get different encodings."""
    torch.manual_seed(seed)
    kind, config = FAMILIES[family]
    model = kind(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "position" not in name:
                parameter.mul_(4)
    model.save_pretrained(folder)
    return folder
