"""Any file -> RGB image, safely: PNG, JPEG, TIFF, WebP, BMP and DICOM, told apart by content."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from medssl.dicom import is_dicom, read_dicom
from medssl.errors import ImageError

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
MAX_BYTES = 50 * 2**20
MAX_PIXELS = 50_000_000
ALLOWED = "Allowed: PNG, JPEG, TIFF, WebP, BMP or DICOM."
# What a user may take for an image, by its first bytes.
REFUSED = (
    (b"%PDF", "a PDF document"),
    (b"GIF8", "a GIF"),
    (b"PK\x03\x04", "a ZIP or Office file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x00\x00\x01\x00", "an icon file"),
    (b"8BPS", "a Photoshop file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"RIFF????AVI ", "a video"),
    (b"????ftypheic", "a HEIC photo"),
    (b"????ftypavif", "an AVIF picture"),
    (b"????ftyp", "a video"),
    (b"\x5c\x01\x00\x00", "a NIfTI volume"),
)
Source = str | Path | bytes | bytearray | BinaryIO | Image.Image


def read_image(source: Source, frame: int = 0) -> Image.Image:
    """The RGB image in a path, bytes, file object or PIL image; content decides, not the name.

    `frame` picks one frame of a multi-frame DICOM; of other files the first counts. Orientation is applied,
    transparency laid on white (as viewers show it), wide ranges brought to 8 bit, all metadata dropped.
    Raises ImageError for anything else: empty, truncated, no image, over 50 MB, or over 50 megapixels, which is told
    before anything is decoded.
    """
    if isinstance(source, Image.Image):
        check_size(*source.size)
        return clean(to_rgb(source))
    data = read_bytes(source)
    if not data:
        raise ImageError("The file is empty. Give a file with an image in it.")
    if is_dicom(data):
        return clean(read_dicom(data, frame, check_size))
    name = foreign_name(data)
    if name:
        raise ImageError(f"This is {name}, not an image that can be analysed. {ALLOWED}")
    return clean(decode(data))


def read_bytes(source: Source) -> bytes:
    """The bytes of a path, bytes or file object, at most 50 MB. Raises ImageError."""
    if isinstance(source, (bytes, bytearray)):
        data = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            if path.is_dir():
                raise ImageError(f"{path.name or path} is a folder; give one image file.")
            size = path.stat().st_size
            data = path.read_bytes() if size <= MAX_BYTES else b"\0" * 0
        except (OSError, ValueError) as error:
            raise ImageError(
                f"The file {path.name!r} cannot be opened: {getattr(error, 'strerror', None) or error}."
            ) from error
        if size > MAX_BYTES:
            raise ImageError(
                f"The file has {size / 2**20:.0f} MB; at most {MAX_BYTES >> 20} MB are read. Give a smaller one."
            )
    elif hasattr(source, "read"):
        try:
            data = source.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            raise ImageError(f"The file cannot be read: {error}.") from error
        if not isinstance(data, bytes):
            raise ImageError("The file object gives text; open it in binary mode ('rb').")
    else:
        raise ImageError(f"A {type(source).__name__} is no image. Give a path, bytes, an open file or a PIL image.")
    if len(data) > MAX_BYTES:
        raise ImageError(f"The file has more than {MAX_BYTES >> 20} MB, the most that is read. Give a smaller one.")
    return data


def foreign_name(data: bytes) -> str | None:
    """What kind of unwanted file this is, None when it may be an image."""
    for magic, name in REFUSED:
        head = data[: len(magic)]
        if len(head) == len(magic) and all(m == b or m == ord("?") for m, b in zip(magic, head, strict=True)):
            return name
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:4096].lower():
        return "an SVG drawing"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return None


def decode(data: bytes) -> Image.Image:
    """Decode the bytes with Pillow; size is checked on the header, before any pixel is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_size(*image.size)
                image.load()
                return to_rgb(ImageOps.exif_transpose(image))
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"This file is not an image that can be read, or its start is damaged. {ALLOWED}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(too_large()) from error
    except ImageError:
        raise
    # Pillow's decoders raise many types on damaged files; every one means the same to the person who gave the file.
    except (OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError, OverflowError) as error:
        raise ImageError("The image is damaged or cut off and cannot be decoded. Export it again.") from error
    except (ArithmeticError, AttributeError, RuntimeError, NotImplementedError, MemoryError, AssertionError) as error:
        raise ImageError("The image is damaged and cannot be decoded. Export it again.") from error


def too_large() -> str:
    """The sentence for an image with too many pixels."""
    return f"The image has more than {MAX_PIXELS // 10**6} megapixels, the most that is read. Give a smaller one."


def check_size(width: int, height: int) -> None:
    """Raises ImageError for an image without pixels or with more than 50 million."""
    if width < 1 or height < 1:
        raise ImageError("The image has no pixels.")
    if width * height > MAX_PIXELS:
        raise ImageError(too_large())


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB: transparency on white, 16-bit and float ranges brought to 8 bit."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        return Image.fromarray(to_eight_bit(np.asarray(image))).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def to_eight_bit(values: np.ndarray) -> np.ndarray:
    """Wide integers or floats as uint8.

    Integers that use the upper half of 16 bit are divided by 257 (a picture's full range); all else is stretched from
    its 0.1st to its 99.9th percentile, because scanners fill 12 of 16 bits. Raises ImageError when no value is finite.
    """
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError("The image holds no finite value, so there is nothing to see. Export it again.")
    if values.dtype.kind in "iu" and values.min() >= 0 and 32767 < values.max() <= 65535:
        return np.round(values / 257).astype(np.uint8)
    values = np.where(finite, values, values[finite].min()).astype(np.float64)
    low, high = np.percentile(values[finite], (0.1, 99.9))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    if not high > low:
        return np.full(values.shape, 128, np.uint8)
    return np.round(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def clean(image: Image.Image) -> Image.Image:
    """The same pixels in a new image without any metadata."""
    return Image.frombytes("RGB", image.size, image.tobytes())


def image_id(image: Image.Image) -> str:
    """A name made from an RGB image's pixels and size: equal pictures, equal ids."""
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()[:20]
