"""What a checkpoint's preprocessor_config.json says of how an image enters: size, normalisation, interpolation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Len
from pydantic import FiniteFloat, TypeAdapter
from typing_extensions import TypedDict

from medssl.backbones.registry import BackboneSpec
from medssl.errors import BackboneError
from medssl.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from medssl.shapes import check_shape, read_json

PROCESSOR_FILE, NESTING_FILE, NESTED = "preprocessor_config.json", "processor_config.json", "image_processor"
MOST_PIXELS = 4096  # of a side: a stranger's file may not ask for a frame that no memory holds
DEFAULT_SIDE = 224
RESAMPLE_NAMES = ("nearest", "lanczos", "bilinear", "bicubic")  # in the order of Pillow's numbers
Side = Annotated[int, Ge(1), Le(MOST_PIXELS)]


class Sides(TypedDict, total=False):
    """Sides as transformers names them."""

    height: Side
    width: Side
    shortest_edge: Side | None
    longest_edge: Side | None


Size = Side | Sides | Annotated[list[Side], Len(2, 2)] | None


class StoredProcessor(TypedDict, total=False):
    """The fields of a preprocessor_config.json that are read."""

    size: Size
    crop_size: Size
    do_center_crop: bool | None
    image_mean: Annotated[list[FiniteFloat], Len(3, 3)] | None
    image_std: Annotated[list[Annotated[FiniteFloat, Gt(0)]], Len(3, 3)] | None
    resample: Annotated[int, Ge(0), Le(len(RESAMPLE_NAMES) - 1)] | None


PROCESSOR = TypeAdapter(StoredProcessor)
SIZE = TypeAdapter(Size)


def read_processor(checkpoint: Path) -> dict:
    """The fields of a checkpoint's image processor; {} where it has none.

    As transformers does, one that is nested in a processor_config.json comes first. Raises BackboneError naming the
    file and the field that does not fit.
    """
    for path, nested in ((checkpoint / NESTING_FILE, True), (checkpoint / PROCESSOR_FILE, False)):
        fields = read_json(path, str(path), BackboneError) if path.is_file() else {}
        fields = fields.get(NESTED) if nested else fields
        if fields is not None and fields != {}:
            check_shape(PROCESSOR, fields, str(path), BackboneError)
            return fields
    return {}


def height_and_width(size: int | dict | list) -> tuple[int, int] | None:
    """The sides in pixels that a stored size means; None where it says nothing."""
    if isinstance(size, dict):
        if {"height", "width"} <= set(size):
            return size["height"], size["width"]
        size = size.get("shortest_edge") or size.get("longest_edge") or 0
    if isinstance(size, int):
        return (size, size) if size else None
    height, width = size
    return height, width


def default_preprocess(checkpoint: Path, model: torch.nn.Module, spec: BackboneSpec | None) -> Preprocess:
    """The checkpoint's own normalisation and input size, the whole image squashed to it: nothing is cropped.

    Raises BackboneError where its files say what cannot be.
    """
    fields = read_processor(checkpoint)
    own = getattr(model.config, "image_size", None)
    own = list(own) if isinstance(own, tuple) else own
    check_shape(SIZE, own, f"image_size in the config.json of {checkpoint}", BackboneError)
    crop = fields.get("crop_size") if fields.get("do_center_crop", True) else None
    stored = (size for size in (crop, fields.get("size"), spec and spec.input_size, own, DEFAULT_SIDE) if size)
    resample = fields.get("resample")
    return Preprocess(
        size=next(sides for size in stored if (sides := height_and_width(size))),
        mean=tuple(fields.get("image_mean") or (spec.mean if spec else IMAGENET_MEAN)),
        std=tuple(fields.get("image_std") or (spec.std if spec else IMAGENET_STD)),
        interpolation="bicubic" if resample is None else RESAMPLE_NAMES[resample],
    )
