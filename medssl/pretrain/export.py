"""Save a pretrained encoder as a plain transformers folder with its input size and its recipe."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

import torch

from medssl.preprocess import IMAGENET_MEAN, IMAGENET_STD
from medssl.pretrain.encoder import Encoder
from medssl.pretrain.recipe import Recipe

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def save_encoder(encoder: Encoder, out: Path, recipe: Recipe, facts: dict, dtype: str = "float32") -> None:
    """Write config.json, model.safetensors, preprocessor_config.json and pretraining.json; each appears whole."""
    model = copy.deepcopy(encoder.model).to("cpu", DTYPES[dtype]).eval()
    if encoder.prefix:
        model.set_attn_implementation("sdpa")
    beside = out / f".{os.getpid()}.tmp"
    model.save_pretrained(beside)
    size = {"height": recipe.size, "width": recipe.size}
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_center_crop": False,
        "size": size,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
        "resample": 3,
    }
    (beside / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", "utf-8")
    (beside / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    for file in sorted(beside.iterdir()):
        file.replace(out / file.name)
    shutil.rmtree(beside)
