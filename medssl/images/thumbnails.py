"""Small JPEG copies of pictures, as cases show them."""

from __future__ import annotations

import io

from PIL import Image

SIDE = 224
QUALITY = 90


def thumbnail(image: Image.Image, side: int = SIDE) -> bytes:
    """An RGB image as JPEG bytes with a longer side of at most `side` pixels, without any metadata."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()
