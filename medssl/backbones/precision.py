"""The precision of a backbone's fast forwards: bf16 where the processor has it, int8 for scores where asked for."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from medssl.backbones import cpu as attention
from medssl.errors import BackboneError

BF16, INT8, FP32 = "bf16", "int8", "fp32"
PRECISIONS = (FP32, BF16, INT8)
LARGEST = 127  # of a signed byte; -128 is not used, so that both signs are alike
SMALLEST_SCALE = 1e-8


def has_one_of(probes: tuple[str, ...]) -> bool:
    """Whether this processor has one of the features that these functions of torch.cpu look for."""
    return any(getattr(torch.cpu, name)() for name in probes if hasattr(torch.cpu, name))


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return has_one_of(("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def native_int8(device: torch.device) -> bool:
    """Whether the device is a processor that multiplies matrices of signed bytes in hardware (VNNI)."""
    return device.type == "cpu" and has_one_of(("_is_vnni_supported", "_is_avx512_vnni_supported"))


@dataclass(frozen=True)
class Precision:
    """In what a backbone's fast forwards are computed: those of embeddings, and those of an explainer's scores."""

    embeddings: str
    scores: str

    @classmethod
    def of(cls, asked: str, device: torch.device) -> Precision:
        """What is meant by a name: "auto" is bf16 where the device has it, else fp32; "int8" is that but for scores.

        Embeddings are never int8, which moved precision at 1 by 0.009 (docs, performance). Raises BackboneError for an
        unknown name, and for int8 on a device without it.
        """
        if asked not in ("auto", *PRECISIONS):
            raise BackboneError(f"Unknown precision {asked!r}. Allowed: auto, {', '.join(PRECISIONS)}.")
        if asked == INT8 and not native_int8(device):
            raise BackboneError(
                f"The precision int8 needs a processor with VNNI; this {device.type} has none. Choose auto, bf16 or "
                "fp32."
            )
        best = BF16 if native_bf16(device) else FP32
        return cls(best if asked in ("auto", INT8) else asked, best if asked == "auto" else asked)


class Int8Linear(torch.nn.Module):
    """A linear layer whose product is one of signed bytes: a scale for each output channel, and for each token.

    Inputs `[..., K]`, outputs `[..., N]` in the input's type. There is no gradient. A scale for each token keeps one
    that is large from coarsening the others (as in LLM.int8, Dettmers et al. 2022, arXiv 2208.07339, section 2).
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=SMALLEST_SCALE) / LARGEST
        bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach().float().clone()
        self.register_buffer("columns", torch.round(weight / scale[:, None]).to(torch.int8).t())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The layer's outputs."""
        rows = inputs.reshape(-1, inputs.shape[-1]).float()
        scale = rows.abs().amax(dim=1, keepdim=True).clamp_(min=SMALLEST_SCALE).div_(LARGEST)
        product = torch._int_mm((rows / scale).round_().to(torch.int8), self.columns).float()
        outputs = product.mul_(self.scale).mul_(scale).add_(self.bias).to(inputs.dtype)
        return outputs.view(*inputs.shape[:-1], -1)


def with_int8_linears(model: torch.nn.Module, exact: torch.nn.Module) -> None:
    """Put Int8Linear in the place of every linear layer of a model, made of the float32 weights of `exact`."""
    # Subclasses are left: torch's attention takes their weights without calling them.
    layers = [(name, layer) for name, layer in exact.named_modules() if type(layer) is torch.nn.Linear]
    for name, layer in layers:
        above, _, last = name.rpartition(".")
        setattr(model.get_submodule(above), last, Int8Linear(layer))


def low_precision_copy(model: torch.nn.Module, precision: str, device: torch.device) -> torch.nn.Module:
    """A float32 model in low precision; the model itself where that is fp32.

    What int8 leaves (norms, attention, the first convolution) is bf16 where the processor has it, else float32.
    """
    if precision == FP32:
        return model
    dtype = torch.bfloat16 if precision == BF16 or native_bf16(device) else torch.float32
    # Also when the first to ask encodes in inference mode: whoever wants gradients later uses the same weights.
    with torch.inference_mode(False):
        low = copy.deepcopy(model).to(dtype)
        if precision == INT8:
            with_int8_linears(low, model)
    if device.type == "cpu" and dtype == torch.bfloat16 and low.config._attn_implementation == "sdpa":
        low.set_attn_implementation(attention.NAME)
    return low
