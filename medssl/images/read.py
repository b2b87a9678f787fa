"""Any file -> RGB image, safely: PNG, JPEG, TIFF, WebP, BMP and DICOM, told apart by content."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from medssl.errors import ImageError
from medssl.images.dicom import DAMAGED, frame_number, is_dicom, read_dicom

# What the page offers; Pillow is asked for the first five alone.
FORMATS = ("PNG", "JPEG", "TIFF", "WebP", "BMP", "DICOM")
PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
MAX_BYTES = 50 * 2**20
MAX_PIXELS = 50_000_000
PERCENTILE_VALUES = 4_000_000  # more are thinned evenly: a percentile needs no copy of 50 megapixels
ALLOWED = "Allowed: PNG, JPEG, TIFF, WebP, BMP or DICOM."
# What a user may take for an image, by its first bytes ("?" is any byte).
REFUSED = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"GIF8", "a GIF"),
    (b"PK\x03\x04", "a ZIP or Office file"),
    (b"\xd0\xcf\x11\xe0", "an Office document"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x00\x00\x01\x00", "an icon file"),
    (b"8BPS", "a Photoshop file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"NRRD", "an NRRD volume"),
    (b"\x5c\x01\x00\x00", "a NIfTI volume"),
    (b"\x00\x00\x01\x5c", "a NIfTI volume"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"\x00\x00\x01\xba", "a video"),
    (b"RIFF????AVI ", "a video"),
    (b"RIFF????WAVE", "a sound file"),
    (b"ID3", "a sound file"),
    (b"OggS", "a sound or video file"),
    (b"????ftyphei", "a HEIC photo"),
    (b"????ftypmif1", "a HEIC photo"),
    (b"????ftypavi", "an AVIF picture"),
    (b"????ftyp", "a video"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "a database"),
)
# EXIF orientation to what brings the picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Source = str | Path | bytes | bytearray | BinaryIO | Image.Image


def read_image(source: Source, frame: int = 0) -> Image.Image:
    """The RGB image in a path, bytes, file object or PIL image; content decides, not the name.

    `frame` picks one frame of a multi-frame DICOM; of other files the first counts. Orientation is applied,
    transparency laid on white (as viewers show it), wide ranges brought to 8 bit, all metadata dropped.
    NumPy arrays are refused: their channel order and range are anyone's guess; make a PIL image of them first.
    Raises ImageError for anything else: empty, truncated, no image, over 50 MB, or (told before decoding) over
    50 megapixels.
    """
    frame = frame_number(frame)
    if isinstance(source, Image.Image):
        return finished(source)
    data = read_bytes(source)
    if not data:
        raise ImageError("The file is empty. Give a file with an image in it.")
    if is_dicom(data):
        return clean(read_dicom(data, frame, check_size))
    name = foreign_name(data)
    if name:
        raise ImageError(f"This is {name}, not an image that can be analysed. {ALLOWED}")
    return decode(data)


def read_bytes(source: Source) -> bytes:
    """The bytes of a path, bytes or file object (from where it stands), at most 50 MB. Raises ImageError."""
    if isinstance(source, (bytes, bytearray)):
        data = bytes(source[: MAX_BYTES + 1])
    elif isinstance(source, (str, os.PathLike)):
        data = read_path(Path(source))
    elif hasattr(source, "read"):
        try:
            data = read_stream(source)
        except (OSError, ValueError, TypeError) as error:
            raise ImageError(f"The file cannot be read: {error}.") from error
    else:
        raise ImageError(f"A {type(source).__name__} is no image. Give a path, bytes, an open file or a PIL image.")
    if len(data) > MAX_BYTES:
        raise ImageError(f"The file has more than {MAX_BYTES >> 20} MB, the most that is read. Give a smaller one.")
    return data


def read_path(path: Path) -> bytes:
    """The bytes of a regular file, at most one past the limit."""
    try:
        kind = path.stat()
        if stat.S_ISDIR(kind.st_mode):
            raise ImageError(f"{path.name or path} is a folder; give one image file.")
        if not stat.S_ISREG(kind.st_mode):  # a pipe or device might never end
            raise ImageError(f"{path.name} is no regular file; give one image file.")
        if kind.st_size > MAX_BYTES:
            size = f"{kind.st_size / 2**20:.0f} MB; at most {MAX_BYTES >> 20} MB are read"
            raise ImageError(f"The file has {size}. Give a smaller one.")
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"The file {path.name!r} cannot be opened: {reason}. Check where it lies.") from error


def read_stream(stream: BinaryIO) -> bytes:
    """The bytes of a binary file object, at most one past the limit; unbuffered ones give them in pieces."""
    data = bytearray()
    while len(data) <= MAX_BYTES:
        piece = stream.read(MAX_BYTES + 1 - len(data))
        if isinstance(piece, str):
            raise ImageError("The file object gives text; open it in binary mode ('rb').")
        if not piece:
            break
        data += piece
    return bytes(data)


def foreign_name(data: bytes) -> str | None:
    """What kind of unwanted file this is, None when it may be an image."""
    for magic, name in REFUSED:
        head = data[: len(magic)]
        if len(head) == len(magic) and all(m == b or m == ord("?") for m, b in zip(magic, head, strict=True)):
            return name
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in start:
        return "an SVG drawing"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return None


def decode(data: bytes) -> Image.Image:
    """Decode the bytes with Pillow; size is checked on the header, before any pixel is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
            check_size(*image.size)
            if image.format == "TIFF":
                check_strips(image)
            return finished(image)
    except UnidentifiedImageError as error:
        raise ImageError(f"This file is not an image that can be read, or its start is damaged. {ALLOWED}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(too_large()) from error
    except DAMAGED as error:
        raise ImageError("The image is damaged or cut off and cannot be decoded. Export it again.") from error


def check_strips(image: Image.Image) -> None:
    """Raises ValueError when a TIFF's strips leave pixels out, which Pillow would silently make black."""
    covered = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in image.tile)
    if covered < image.width * image.height:
        raise ValueError("The strips do not cover the picture.")


def finished(image: Image.Image) -> Image.Image:
    """A Pillow image, perhaps not loaded yet, as a new upright RGB one without metadata."""
    check_size(*image.size)
    try:
        image.load()
        return clean(to_rgb(upright(image)))
    # Decoders raise many types on damaged files; every one means the same to the person who gave the file.
    except DAMAGED as error:
        raise ImageError("The image is damaged or cut off and cannot be decoded. Export it again.") from error


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; unreadable EXIF turns nothing, as the pixels are whole."""
    try:
        orientation = image.getexif().get(0x0112)
    except DAMAGED:
        return image
    # Pillow's own exif_transpose also rewrites the EXIF, and fails on odd tags that do not matter here.
    turn = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


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
    """Any Pillow mode as RGB: transparency on white, 16-bit and float ranges brought to 8 bit.

    White, as most viewers and browsers show it, so that people and model see the same picture.
    """
    clear = "transparency" in image.info and image.mode in ("1", "L", "P", "RGB")
    if image.mode == "RGB" and not clear:
        return image
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        return Image.fromarray(to_eight_bit(np.asarray(image))).convert("RGB")
    if image.mode == "La":  # Pillow turns it only into LA
        image = image.convert("LA")
    if clear or image.mode in ("LA", "PA", "RGBA", "RGBa"):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def to_eight_bit(values: np.ndarray) -> np.ndarray:
    """Wide integers or floats `[H, W]` as uint8.

    Integers of which at least one in a thousand lies in the upper half of 16 bit are divided by 257 (a picture's full
    range); all else is stretched from its 0.1st to its 99.9th percentile, because scanners fill 12 of 16 bits. NaN
    becomes black. Raises ImageError when no value is finite.
    """
    sample = values.ravel()[:: values.size // PERCENTILE_VALUES + 1]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        sample = values[np.isfinite(values)]
    if not sample.size:
        raise ImageError("The image holds no finite value, so there is nothing to see. Export it again.")
    low, high = np.percentile(sample, (0.1, 99.9))
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 65535 and high > 32767:
        return np.round(values / 257).astype(np.uint8)
    if not high > low:
        low, high = float(sample.min()), float(sample.max())
    if not high > low:
        return np.full(values.shape, 128, np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        shares = (values.astype(np.float64) - low) / (high - low)
    return np.round(np.clip(np.nan_to_num(shares, nan=0.0), 0, 1) * 255).astype(np.uint8)


def clean(image: Image.Image) -> Image.Image:
    """The same pixels in a new image without any metadata."""
    return Image.frombytes("RGB", image.size, image.tobytes())


def image_id(image: Image.Image) -> str:
    """A name made from an RGB image's pixels and size: equal pictures, equal ids."""
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()[:20]
