"""Pictures at the size they are shown in, and pictures inside HTML."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
from PIL import Image

from medssl.explain import Explanation
from medssl.images import thumbnails

SHOWN_SIDE = 1024


def for_screen(image: Image.Image, side: int = SHOWN_SIDE) -> Image.Image:
    """The image, at most `side` pixels on its longer side."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def blend(image: Image.Image, explanation: Explanation, opacity: float, side: int = SHOWN_SIDE) -> Image.Image:
    """The overlay at screen size; the map is only resized, never computed again."""
    small = for_screen(image, side)
    heatmap = explanation.heatmap
    if small.size != image.size:
        resized = Image.fromarray(heatmap).resize(small.size, Image.Resampling.BILINEAR)
        heatmap = np.clip(np.asarray(resized, np.float32), 0, 1)
    return replace(explanation, heatmap=heatmap).overlay(small, opacity)


def data_uri(image: Image.Image) -> str:
    """A small picture as a PNG data address."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def jpeg_uri(image: Image.Image, side: int) -> str:
    """A picture of at most `side` pixels as a JPEG data address: a tenth of a PNG's size."""
    return "data:image/jpeg;base64," + base64.b64encode(thumbnails.thumbnail(image, side)).decode()
