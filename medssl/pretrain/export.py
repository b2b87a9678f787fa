"""Save a pretrained encoder as a plain transformers folder with its input size and its recipe."""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from medssl.backbones.backbone import quiet_loading
from medssl.backbones.processor import RESAMPLE_NAMES
from medssl.errors import PretrainError
from medssl.images.preprocess import Preprocess
from medssl.pretrain.encoder import Encoder
from medssl.pretrain.recipe import Recipe

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Export:
    """How the encoder is saved: the weights' `dtype`, and the side in pixels that it asks for (default: large views').

    Images are seen whole later and in crops while training, so that a side above the views' keeps the scale.
    Raises PretrainError.
    """

    dtype: str = "float32"
    input_size: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise PretrainError(f"Weights cannot be saved as {self.dtype!r}. Allowed: {', '.join(DTYPES)}.")


def save_encoder(encoder: Encoder, out: Path, recipe: Recipe, facts: dict, export: Export) -> None:
    """Write config.json, model.safetensors, preprocessor_config.json and pretraining.json; each appears whole."""
    model = copy.deepcopy(encoder.model).to("cpu", DTYPES[export.dtype]).eval()
    if encoder.prefix:
        model.set_attn_implementation("sdpa")
    beside = out / f".{os.getpid()}.tmp"
    with quiet_loading():
        model.save_pretrained(beside)
    side = export.input_size or recipe.size
    write_processor(beside, Preprocess((side, side)))
    (beside / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    move_files(beside, out)


def write_processor(folder: Path, preprocess: Preprocess) -> None:
    """Write preprocessor_config.json: how an image enters, as transformers reads it."""
    height, width = preprocess.size
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_center_crop": False,
        "size": {"height": height, "width": width},
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
        "resample": RESAMPLE_NAMES.index(preprocess.interpolation),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", "utf-8")


def move_files(beside: Path, out: Path) -> None:
    """Move the files of a folder beside into `out`, in the order of their names; each appears whole."""
    for file in sorted(beside.iterdir()):
        file.replace(out / file.name)
    shutil.rmtree(beside)
