"""The page's pictures: an image and its heatmap at screen size, examples, small pictures inside HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from medssl.bundle.bundle import Bundle
from medssl.explain import Explanation
from medssl.images.read import read_image

SHOWN_SIDE = 1024


def for_screen(image: Image.Image) -> Image.Image:
    """The image, at most 1024 pixels on its longer side."""
    small = image.copy()
    small.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    return small


def blend(image: Image.Image, explanation: Explanation, opacity: float) -> Image.Image:
    """The overlay at screen size; the map is only resized, never computed again."""
    small = for_screen(image)
    heatmap = explanation.heatmap
    if small.size != image.size:
        resized = Image.fromarray(heatmap).resize(small.size, Image.Resampling.BILINEAR)
        heatmap = np.clip(np.asarray(resized, np.float32), 0, 1)
    return replace(explanation, heatmap=heatmap).overlay(small, opacity)


def make_examples(bundles: Mapping[str, Bundle], folder: Path) -> list[dict]:
    """One case of each bundle (of its test split, if it has one) as a PNG file: task, path, true label, group."""
    examples = []
    for number, (name, bundle) in enumerate(bundles.items()):
        splits = bundle.cases["split"]
        if not len(splits):
            continue
        case = bundle.cases[splits.index("test") if "test" in splits else 0]
        path = folder / f"example-{number}.png"
        read_image(case["image"]).save(path)
        label = bundle.labels[case["label"]]
        examples.append({"task": name, "path": str(path), "label": label, "group": case["group_id"] or None})
    return examples


def data_uri(image: Image.Image) -> str:
    """A small picture as a PNG data address."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
