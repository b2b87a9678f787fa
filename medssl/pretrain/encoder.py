"""The encoders that can be pretrained: architectures as data, and one way to call them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, Dinov2Config, PretrainedConfig, ResNetConfig, ViTConfig

from medssl.backbones import cpu as attention
from medssl.backbones.backbone import Backbone
from medssl.backbones.precision import native_bf16
from medssl.errors import PretrainError

TINY = {"hidden_size": 192, "num_attention_heads": 3}
ARCHITECTURES: dict[str, PretrainedConfig] = {
    "medssl-tiny": Dinov2Config(**TINY, num_hidden_layers=8, patch_size=14, image_size=98),
    "dinov2-small": Dinov2Config(hidden_size=384, num_attention_heads=6, patch_size=14, image_size=224),
    "dinov2-base": Dinov2Config(patch_size=14, image_size=224),
    "vit-tiny": ViTConfig(**TINY, num_hidden_layers=12, intermediate_size=768, patch_size=16, image_size=224),
    "vit-small": ViTConfig(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, patch_size=16, image_size=224
    ),
    "resnet-18": ResNetConfig(depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", num_labels=0),
    "resnet-50": ResNetConfig(num_labels=0),
}


class Encoder(nn.Module):
    """A transformers vision model that gives a pooled vector `[B, D]` and patch tokens `[B, N, D]` for pixels.

    The vector is the CLS token, or the mean of the feature map of a model without one.
    """

    def __init__(self, model: nn.Module, prefix: int, patch: int | None) -> None:
        super().__init__()
        self.model, self.prefix, self.patch = model, prefix, patch
        # A pooler takes no part in any loss: its weights would only drift by weight decay.
        if getattr(model, "pooler", None) is not None and prefix:
            model.pooler = None
        embeddings = getattr(model, "embeddings", None)
        self.can_mask = getattr(embeddings, "mask_token", None) is not None and prefix > 0
        config = model.config
        self.dimension: int = config.hidden_size if prefix else config.hidden_sizes[-1]
        native = getattr(config, "image_size", None)
        self.native = native if isinstance(native, int) else None

    @classmethod
    def create(cls, architecture: str, seed: int) -> Encoder:
        """A freshly initialised encoder of a named architecture. Raises PretrainError for an unknown name."""
        if architecture not in ARCHITECTURES:
            raise PretrainError(f"No architecture {architecture!r}. Allowed: {', '.join(ARCHITECTURES)}.")
        config = AutoConfig.for_model(**ARCHITECTURES[architecture].to_dict())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModel.from_config(config)
        return cls(model, 1 if hasattr(config, "patch_size") else 0, getattr(config, "patch_size", None))

    @classmethod
    def load(cls, init: str | Path) -> Encoder:
        """An encoder that goes on from a checkpoint: a registry name, Hub id or folder. Raises BackboneError."""
        backbone = Backbone.from_pretrained(init, precision="fp32")
        backbone.model.requires_grad_(True).to("cpu")
        return cls(backbone.model, backbone.prefix, backbone.stride or None)

    @torch.no_grad()
    def grid(self, side: int) -> tuple[int, int]:
        """Rows and columns of the patch tokens, or of the feature map, of a square view."""
        if self.patch:
            return side // self.patch, side // self.patch
        training = self.model.training
        shape = self.model.eval()(pixel_values=torch.zeros(1, 3, side, side)).last_hidden_state.shape
        self.model.train(training)
        return shape[2], shape[3]

    def use_fast_attention(self) -> None:
        """On a CPU with bf16 plain matrix products are faster than torch's fused kernel."""
        if self.prefix and native_bf16(torch.device("cpu")) and not torch.cuda.is_available():
            self.model.set_attn_implementation(attention.NAME)

    def forward(self, pixels: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled `[B, D]` and patch tokens `[B, N, D]` of standardized pixels; bool `mask [B, N]` hides patches.

        A model without patches gives the places of its final feature map, row by row.
        """
        extra: dict[str, object] = {}
        if mask is not None:
            extra["bool_masked_pos"] = mask
        if self.model.config.model_type == "vit" and pixels.shape[-1] != self.native:
            extra["interpolate_pos_encoding"] = True
        hidden = self.model(pixel_values=pixels, **extra).last_hidden_state
        if hidden.ndim == 4:
            return hidden.mean((2, 3)), hidden.flatten(2).transpose(1, 2)
        return hidden[:, 0], hidden[:, self.prefix :]
