"""A frozen image encoder: any transformers vision model with patch tokens or a final feature map."""

from __future__ import annotations

import copy
import inspect
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoModel

from medssl.backbones.blocks import block_norms, blocks, captured, first_token_only, norm_between
from medssl.backbones.checkpoint import check_checkpoint, first_line, folder_revision, quiet_loading
from medssl.backbones.cls_cut import ClsCut, same
from medssl.backbones.encoding import Encoding
from medssl.backbones.precision import Precision, low_precision_copy
from medssl.backbones.processor import default_preprocess
from medssl.backbones.reading import Reading, resolve_reading
from medssl.backbones.registry import BACKBONES
from medssl.errors import BackboneError, BundleError
from medssl.hub.pull import pull_checkpoint
from medssl.images.preprocess import Preprocess
from medssl.runtime import on_zero_gpu, reuse_freed_memory

# Weights that encoding never touches, so that a checkpoint may lack them: poolers and masked-image training's token.
UNUSED_WEIGHTS = ("pooler.", "mask_token")
MAX_PREFIX_TOKENS = 32
# What transformers raises for a checkpoint whose files are missing, damaged or hold what cannot be.
CANNOT_LOAD = (
    *(OSError, ValueError, KeyError, IndexError, RuntimeError, TypeError, AttributeError, ArithmeticError),
    *(StrictDataclassError, SafetensorError),
)
# From 4 images of 257 tokens on throughput is flat on the CPUs measured, and memory is not.
TOKENS_PER_CPU_BATCH = 8 * 257
TOKENS_PER_GPU_BATCH = 128 * 257


class Backbone:
    """A frozen encoder. Make one with `Backbone.from_pretrained`.

    `encode` is always float32. `precision` is that of `embed` and of `forward(low_precision=True)`; "auto" is bf16
    where the device has it natively, else fp32, and "int8" is that, with int8 in the view that is for `scoring`.
    """

    def __init__(
        self, model: torch.nn.Module, id: str, revision: str, preprocess: Preprocess, precision: str = "auto"
    ) -> None:
        self.id, self.revision, self.preprocess = id, revision, preprocess
        self.folder: Path | None = None  # where its checkpoint lies
        # A ZeroGPU Space says that there is a GPU, and has one only inside its forks.
        self.device = torch.device("cuda" if torch.cuda.is_available() and not on_zero_gpu() else "cpu")
        if self.device.type == "cpu":
            reuse_freed_memory()
        chosen = Precision.of(precision, self.device)
        self.precision, self.score_precision = chosen.embeddings, chosen.scores
        self.model = model.eval().requires_grad_(False).to(self.device, torch.float32)
        self.layers: tuple[int, ...] = ()
        self.read_blocks: tuple[int, ...] = ()
        self._cls_cuts: dict[torch.nn.Module, ClsCut | None] = {}
        self._lock = threading.Lock()
        self._parameters = inspect.signature(model.forward).parameters
        self._probe()

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None, precision: str = "auto") -> Backbone:
        """Load a registry name, a Hub id or a folder.

        Raises BackboneError when it cannot be found, is no vision encoder, or lacks weights that encoding uses.
        """
        name = str(name)
        spec = BACKBONES.get(name)
        folder = spec.folder if spec and spec.folder else Path(name)
        local = folder.is_dir() and not (spec and spec.hub_id)
        source = str(folder) if local else (spec.hub_id if spec else name)
        if not spec and not folder.is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            raise BackboneError(
                f"No backbone {name!r}. Give a folder that exists, a Hub id like 'facebook/dinov2-small', "
                f"or one of: {', '.join(BACKBONES)}."
            )
        try:
            checkpoint = folder if local else pull_checkpoint(source, revision)
            check_checkpoint(Path(checkpoint))
            with quiet_loading():
                model, report = AutoModel.from_pretrained(
                    checkpoint,
                    dtype=torch.float32,
                    output_loading_info=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                )
        except BundleError as error:
            raise BackboneError(f"Backbone {source!r} could not be loaded: {error}") from error
        except CANNOT_LOAD as error:
            raise BackboneError(
                f"Backbone {source!r} (revision {revision or 'main'}) could not be loaded: {first_line(error)} "
                "Check the name and the network, or give a folder written by save_pretrained."
            ) from error
        broken = [key for key in report["missing_keys"] if not any(word in key for word in UNUSED_WEIGHTS)]
        broken += [str(key) for key in report["mismatched_keys"]]
        if broken:
            raise BackboneError(
                f"Backbone {source!r} lacks {len(broken)} of the weights its config asks for (first: {broken[0]}); "
                "it would encode with random numbers. Give a complete checkpoint."
            )
        try:
            backbone = cls(
                model,
                id=(spec.name if spec else str(folder.resolve())) if local else source,
                revision=folder_revision(folder) if local else checkpoint.name,
                preprocess=default_preprocess(checkpoint, model, spec),
                precision=precision,
            )
        except CANNOT_LOAD as error:
            raise BackboneError(f"Backbone {source!r} cannot encode a blank image: {first_line(error)}") from error
        backbone.folder = Path(checkpoint)
        return backbone

    def _probe(self) -> None:
        """Learn from one forward of a blank image where the patch tokens are."""
        config, (height, width) = self.model.config, self.preprocess.size
        hidden = self._hidden(torch.zeros(1, 3, height, width))
        self.dimension: int = hidden.shape[1] if hidden.ndim == 4 else hidden.shape[-1]
        self.stride, self.prefix = 0, 0
        if hidden.ndim == 3:
            patch = getattr(config, "patch_size", None)
            patch = patch[0] if isinstance(patch, (tuple, list)) else patch
            stages = len(config.depths) if getattr(config, "depths", None) else 1
            for stride in (patch, patch * 2 ** (stages - 1)) if patch else ():
                prefix = hidden.shape[1] - (height // stride) * (width // stride)
                if 0 <= prefix <= MAX_PREFIX_TOKENS:
                    self.stride, self.prefix = stride, prefix
            if not self.stride:
                raise BackboneError(
                    f"Backbone {self.id!r} gives {hidden.shape[1]} tokens for {height}x{width} pixels, which is no "
                    "patch grid. A vision encoder with patch tokens or a final feature map is needed."
                )
        elif hidden.ndim != 4:
            raise BackboneError(f"Backbone {self.id!r} gives shape {list(hidden.shape)}: no image encoding.")
        self.has_cls = self.prefix > 0
        self.map_layer = block_norms(self.model)[0] if self.has_cls else None

    @property
    def default_pooling(self) -> str:
        """ "cls" where the model has such a token, else "mean"."""
        return "cls" if self.has_cls else "mean"

    @property
    def grid(self) -> tuple[int, int] | None:
        """Patch rows and columns at the default input size; None for convolutional models."""
        height, width = self.preprocess.size
        return (height // self.stride, width // self.stride) if self.stride else None

    def reading(self, *layers: int | None) -> Backbone:
        """This backbone, with the patches of these blocks (1 is the first) in every Encoding; None asks for nothing.

        Weights are shared. Raises BackboneError for a block that there is not.
        """
        wanted = tuple(sorted({layer for layer in layers if layer is not None}))
        if wanted == self.layers:
            return self
        depth = len(blocks(self.model)) if wanted and self.has_cls else 0
        if wanted and not 1 <= wanted[0] <= wanted[-1] <= depth:
            raise BackboneError(
                f"Backbone {self.id!r} has no block {', '.join(map(str, wanted))} to read patches of. Allowed: "
                + (f"1 to {depth}, or None for the final patches." if depth else "None, the final patches.")
            )
        return self._view(layers=wanted)

    def pooled(self, pooling: str | Reading) -> Backbone:
        """This backbone, with what a reading needs of its blocks in every Encoding; weights are shared.

        Raises BackboneError for a reading that it does not have.
        """
        reading = self.check_reading(pooling)
        return self if reading.blocks == self.read_blocks else self._view(read_blocks=reading.blocks)

    def _view(self, **changes: tuple[int, ...]) -> Backbone:
        """A copy over the same weights that encodes other blocks too."""
        _ = self._low_precision_model  # made before the copy, so that both share it
        if self.score_precision != self.precision:
            _ = self._int8_model
        view = copy.copy(self)
        vars(view).update(changes)
        return view

    @property
    def scoring(self) -> Backbone:
        """This backbone for an explainer's scores: its low precision is int8 where that was asked for.

        Weights are shared; there is no gradient in int8.
        """
        if self.score_precision == self.precision:
            return self
        view = copy.copy(self)
        vars(view).update(precision=self.score_precision, _low_precision_model=self._int8_model)
        return view

    def check_reading(self, pooling: str | Reading) -> Reading:
        """The reading of a text form. Raises BackboneError where this backbone lacks one of its parts."""
        reading = Reading.parse(pooling) if isinstance(pooling, str) else pooling
        reading.check(self.has_cls, self.depth if reading.blocks else None)
        return reading

    def resolve_reading(self, text: str) -> Reading:
        """The reading that a text form or a name such as "cls-last4" means here. Raises BackboneError."""
        return resolve_reading(text, self.has_cls, self.depth)

    def to(self, device: str) -> None:
        """Move the weights to a device."""
        if self.device != torch.device(device):
            self.score_precision = Precision.of(self.score_precision, torch.device(device)).scores
            self.device = torch.device(device)
            self.model.to(self.device)
            for made_there in ("_low_precision_model", "_int8_model", "_last_mlp_norm"):
                self.__dict__.pop(made_there, None)
            self._cls_cuts = {}

    def embedding_dim(self, pooling: str | Reading) -> int:
        """The width of a pooled embedding."""
        return self.dimension * len(self.check_reading(pooling).parts)

    def batch_size(self, preprocess: Preprocess) -> int:
        """How many images one forward takes for the best throughput on this device."""
        height, width = preprocess.size
        side = self.stride or 16
        tokens = (height // side) * (width // side) + self.prefix
        budget = TOKENS_PER_GPU_BATCH if self.device.type == "cuda" else TOKENS_PER_CPU_BATCH
        return max(1, round(budget / max(tokens, 1)))

    @cached_property
    def _low_precision_model(self) -> torch.nn.Module:
        """The model in low precision; a copy, so that the float32 one stays as it was loaded."""
        return low_precision_copy(self.model, self.precision, self.device)

    @cached_property
    def _int8_model(self) -> torch.nn.Module:
        """The model in the precision of scores, where that is another."""
        return low_precision_copy(self.model, self.score_precision, self.device)

    def _hidden(self, pixels: torch.Tensor, model: torch.nn.Module | None = None) -> torch.Tensor:
        """The model's last hidden state for `[B, 3, H, W]` pixels, with whatever extra inputs its family needs."""
        model = model or self.model
        extra: dict[str, object] = {}
        config = self.model.config
        native = getattr(config, "image_size", None)
        native = tuple(native) if isinstance(native, (tuple, list)) else (native, native)
        if "interpolate_pos_encoding" in self._parameters and tuple(pixels.shape[-2:]) != native:
            extra["interpolate_pos_encoding"] = True
        if config.model_type == "vit_mae":
            # MAE drops and shuffles patches by default; no drop and rising noise keep all of them in order.
            config.mask_ratio = 0.0
            tokens = (pixels.shape[-2] // config.patch_size) * (pixels.shape[-1] // config.patch_size)
            extra["noise"] = torch.arange(tokens, device=self.device).expand(len(pixels), -1)
        return model(pixel_values=pixels.to(self.device, model.dtype), **extra).last_hidden_state

    def forward(
        self, pixels: torch.Tensor, maps: bool = False, low_precision: bool = False, cls_only: bool = False
    ) -> Encoding:
        """Encode normalised pixels `[B, 3, H, W]` in one forward; gradients flow unless the caller turns them off.

        `low_precision` computes in low precision (without `maps`). `cls_only` may leave out (without `maps`, where the
        model allows it) what the last block does for other tokens than CLS; the patches are then NaN. Raises
        BackboneError when height or width is no multiple of the patch size.
        """
        height, width = pixels.shape[-2:]
        if self.stride and (height % self.stride or width % self.stride):
            raise BackboneError(
                f"Pixels of {height}x{width} do not fit patches of {self.stride}; use multiples of {self.stride}."
            )
        model = self._low_precision_model if low_precision and not maps else self.model
        kept: dict[int, list[torch.Tensor]] = {}
        cut = self._cls_cut(model) if cls_only and not maps and not self.read_blocks else None
        with ExitStack() as stack:
            if cut:
                stack.enter_context(cut.applied())
            if maps and self.map_layer is not None:
                kept[0] = stack.enter_context(captured(self.map_layer))
            for block in {*self.layers, *self.read_blocks}:
                kept[block] = stack.enter_context(captured(blocks(model)[block - 1]))
            hidden = self._hidden(pixels, model).float()
        encoding = self._split(hidden, height, width)
        if cut:
            encoding = replace(encoding, patches=torch.full_like(encoding.patches, torch.nan))
        found = encoding.patches
        if 0 in kept:
            found = self._grid(kept[0][-1].float(), height, width)
        norm = model.get_submodule(self._final_norm) if self.read_blocks and self._final_norm else torch.nn.Identity()
        normed = {block: norm(kept[block][-1]).float() for block in self.read_blocks}
        return replace(
            encoding,
            maps=found if maps else None,
            layers={layer: self._grid(kept[layer][-1].float(), height, width) for layer in self.layers},
            block_cls={block: tokens[:, 0] for block, tokens in normed.items()},
            block_means={block: tokens[:, self.prefix :].mean(dim=1) for block, tokens in normed.items()},
        )

    @cached_property
    def depth(self) -> int:
        """How many blocks a reading can read; 0 for a model without CLS, or whose final norm is not found."""
        return len(blocks(self.model)) if self._final_norm is not None else 0

    @cached_property
    def _final_norm(self) -> str | None:
        """The name of the norm between the last block and the final tokens, "" where there is none between them.

        None where it is neither, and for a model without CLS. Proved on noise, not assumed.
        """
        if not self.has_cls:
            return None
        height, width = self.preprocess.size
        noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode(), captured(blocks(self.model)[-1]) as kept:
            final = self._hidden(noise)
            return norm_between(self.model, kept[-1], final)

    def _split(self, hidden: torch.Tensor, height: int, width: int) -> Encoding:
        """The last hidden state as CLS token and patch grid."""
        if hidden.ndim == 4:
            return Encoding(None, hidden.permute(0, 2, 3, 1))
        return Encoding(hidden[:, 0] if self.has_cls else None, self._grid(hidden, height, width))

    def _grid(self, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Tokens `[B, N, D]` without the prefix as `[B, h, w, D]`."""
        rows, columns = height // self.stride, width // self.stride
        return tokens[:, self.prefix :].unflatten(1, (rows, columns))

    def pixels(self, images: Sequence[Image.Image], preprocess: Preprocess | None = None) -> torch.Tensor:
        """RGB images as normalised float32 pixels `[B, 3, h, w]`."""
        preprocess = preprocess or self.preprocess
        return torch.from_numpy(preprocess.normalize(np.stack([preprocess.resize(image) for image in images])))

    @torch.no_grad()
    def encode(
        self, images: Sequence[Image.Image], preprocess: Preprocess | None = None, maps: bool = True
    ) -> Encoding:
        """Encode RGB images in one forward."""
        return self.forward(self.pixels(images, preprocess), maps=maps)

    @torch.inference_mode()
    def embed(self, pixels: torch.Tensor, pooling: str) -> np.ndarray:
        """Embeddings `[B, D]` float32 of normalised pixels `[B, 3, h, w]`, computed in low precision."""
        reading = self.check_reading(pooling)
        if reading.blocks:
            with self._lock:
                return self.pooled(reading).forward(pixels, low_precision=True).pool(reading).cpu().numpy()
        layer = self._last_mlp_norm if pooling == "cls" else None
        with self._lock, first_token_only(layer):
            hidden = self._hidden(pixels, self._low_precision_model).float()
        return self._split(hidden, *pixels.shape[-2:]).pool(pooling).cpu().numpy()

    def _cls_cut(self, model: torch.nn.Module) -> ClsCut | None:
        """How a model's last block can be cut to CLS; None where it cannot. Proved on noise, not assumed."""
        if not self.has_cls:
            return None
        if model not in self._cls_cuts:
            found = ClsCut.of(blocks(model)[-1], block_norms(model))
            self._cls_cuts[model] = found if found and self._keeps_cls(found, model) else None
        return self._cls_cuts[model]

    @torch.inference_mode()
    def _keeps_cls(self, cut: ClsCut, model: torch.nn.Module) -> bool:
        """Whether CLS of noise is the same with a cut."""
        noise = torch.randn(2, 3, *self.preprocess.size, generator=torch.Generator().manual_seed(0))
        whole = self._hidden(noise, model)[:, 0].float()
        try:
            with cut.applied():
                return same(whole, self._hidden(noise, model)[:, 0].float(), model.dtype)
        except (RuntimeError, ValueError, IndexError):
            return False

    @cached_property
    def _last_mlp_norm(self) -> torch.nn.Module | None:
        """The norm before that model's last MLP, where cutting all tokens but CLS leaves CLS as it was, else None.

        The last MLP mixes no tokens, so for CLS alone the rest of its work is wasted. Proved on noise, not assumed.
        """
        model = self._low_precision_model
        if not self.has_cls or model is self.model:
            return None
        norms = block_norms(model)
        if len(norms) != 2:
            return None
        height, width = self.preprocess.size
        noise = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        whole = self._hidden(noise, model)[:, 0].float()
        try:
            with first_token_only(norms[1]):
                cut = self._hidden(noise, model)[:, 0].float()
        except (RuntimeError, ValueError, IndexError):
            return None
        same = torch.nn.functional.cosine_similarity(whole, cut).min() > 0.9999
        return norms[1] if same else None

    def describe(self) -> dict:
        """What identifies this backbone, in plain JSON types."""
        return {"id": self.id, "revision": self.revision, "dimension": self.dimension}


_loading = threading.Lock()


@lru_cache(maxsize=4)
def _load_shared(name: str, revision: str | None, precision: str) -> Backbone:
    return Backbone.from_pretrained(name, revision, precision)


def shared_backbone(name: str, revision: str | None = None) -> Backbone:
    """The process's one copy of a backbone (precision from MEDSSL_PRECISION, default auto)."""
    with _loading:
        return _load_shared(str(name), revision, os.environ.get("MEDSSL_PRECISION", "auto"))
