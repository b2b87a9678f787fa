"""Any file -> RGB image, safely: PNG, JPEG, TIFF, WebP, BMP, DICOM and NIfTI, told apart by content."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from medssl.errors import ImageError
from medssl.images.bmp import is_rle4, read_rle4
from medssl.images.color import to_srgb
from medssl.images.dicom import count_frames, frame_number, is_dicom, read_dicom
from medssl.images.limits import DAMAGED, MAX_BYTES, check_size, too_large
from medssl.images.nifti import Volume, is_nifti
from medssl.images.orientation import ORIENTATION_TAG, upright
from medssl.images.shades import sixteen_bit_shades
from medssl.images.tiff import count_pages, read_tiff, wide_values

# What the page offers; Pillow is asked for the first five alone.
FORMATS = ("PNG", "JPEG", "TIFF", "WebP", "BMP", "DICOM", "NIfTI")
PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
ANIMATED_MARKS = (b"\x89PNG", b"RIFF")  # formats that may hold a picture after another
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ALLOWED = "Allowed: PNG, JPEG, TIFF, WebP, BMP, DICOM or NIfTI."
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
    (b"\x5c\x01\x00\x00", "a NIfTI or Analyze header without its volume"),
    (b"\x00\x00\x01\x5c", "a NIfTI or Analyze header without its volume"),
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
Source = str | Path | bytes | bytearray | BinaryIO | Image.Image


def read_image(source: Source, frame: int = 0) -> Image.Image:
    """The RGB image in a path, bytes, file object or PIL image; content decides, not the name.

    `frame` picks one frame of a multi-frame DICOM file, page of a TIFF, picture of an animated WebP or PNG, or slice
    of a NIfTI volume (`frame_count` says how many there are; see `Volume` for how slices lie).
    Orientation is applied, transparency laid on white (as viewers show it), colors converted to sRGB by the profile
    that the file brings, all metadata dropped. Greys of more than 8 bits are shown as `sixteen_bit_shades` says, those
    of DICOM files as their window says.
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
        return clean(read_dicom(data, frame))
    if is_nifti(data):
        return Volume(data).image(frame)
    name = foreign_name(data)
    if name:
        raise ImageError(f"This is {name}, not an image that can be analysed. {ALLOWED}")
    return decode(data, frame)


def read_bytes(source: Source) -> bytes:
    """The bytes of a path, bytes or file object (from where it stands), at most 50 MB. Raises ImageError."""
    if isinstance(source, (bytes, bytearray)):
        data = bytes(source[: MAX_BYTES + 1])
    elif isinstance(source, (str, os.PathLike)):
        data = read_path(Path(source))
    elif isinstance(source, Image.Image) or not hasattr(source, "read"):
        raise ImageError(f"A {type(source).__name__} is no image. Give a path, bytes, an open file or a PIL image.")
    else:
        try:
            data = read_stream(source)
        except (OSError, ValueError, TypeError) as error:
            raise ImageError(f"The file cannot be read: {error}.") from error
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


def frame_count(source: Source) -> int:
    """How many frames (DICOM), pages (TIFF), pictures (WebP, PNG) or slices (NIfTI) a file holds that `read_image` can
    choose from; 1 for all else.

    Raises ImageError for what is no file at all.
    """
    if isinstance(source, Image.Image):
        return 1
    data = read_bytes(source)
    if is_dicom(data):
        return count_frames(data)
    try:
        if data[:4] in TIFF_MARKS:
            return count_pages(data)
        if data[:4] in ANIMATED_MARKS:
            with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
                return int(getattr(image, "n_frames", 1))
        return Volume(data).count if is_nifti(data) else 1
    except (*DAMAGED, ImageError):  # which reading the picture says
        return 1


def decode(data: bytes, frame: int = 0) -> Image.Image:
    """Decode the bytes; size is checked on the header, before any pixel is decoded."""
    try:
        if is_rle4(data):
            return clean(read_rle4(data))
        page = read_tiff(data, frame) if data[:4] in TIFF_MARKS else 0
        if isinstance(page, Image.Image):
            return clean(to_rgb(page))
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
            check_size(*image.size)
            if image.format == "TIFF":
                image.seek(page)
                check_strips(image)
            elif frame:
                check_frame(image, frame)
                image.seek(frame)
            return finished(image)
    except UnidentifiedImageError as error:
        raise ImageError(f"This file is not an image that can be read, or its start is damaged. {ALLOWED}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(too_large()) from error
    except DAMAGED as error:
        raise ImageError("The image is damaged or cut off and cannot be decoded. Export it again.") from error


def check_frame(image: Image.Image, frame: int) -> None:
    """Raises ImageError for a picture of a file that it does not hold."""
    count = int(getattr(image, "n_frames", 1))
    if not 0 <= frame < count:
        raise ImageError(f"There is no picture {frame}; this {image.format} file has {count}, counted from 0.")


def check_strips(image: ImageFile.ImageFile) -> None:
    """Raises ValueError when a TIFF's strips leave pixels out, which Pillow would silently make black."""
    boxes = [tile.extents for tile in image.tile if tile.extents is not None]
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if covered < image.width * image.height:
        raise ValueError("The strips do not cover the picture.")


def finished(image: Image.Image) -> Image.Image:
    """A Pillow image, perhaps not loaded yet, as a new upright RGB one without metadata."""
    check_size(*image.size)
    try:
        image.load()
        profile = image.info.get("icc_profile")
        return clean(to_rgb(to_srgb(upright(image, orientation_of(image)), profile)))
    # Decoders raise many types on damaged files; every one means the same to the person who gave the file.
    except DAMAGED as error:
        raise ImageError("The image is damaged or cut off and cannot be decoded. Export it again.") from error


def orientation_of(image: Image.Image) -> object:
    """What the EXIF of a file says; None where it cannot be read, as the pixels are whole."""
    try:
        return image.getexif().get(ORIENTATION_TAG)
    except DAMAGED:
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB: transparency on white, 16-bit and float ranges brought to 8 bit.

    White, as most viewers and browsers show it, so that people and model see the same picture.
    """
    clear = "transparency" in image.info and image.mode in ("1", "L", "P", "RGB")
    if image.mode == "RGB" and not clear:
        return image
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        return Image.fromarray(sixteen_bit_shades(wide_values(image))).convert("RGB")
    if image.mode == "La":  # Pillow turns it only into LA
        image = image.convert("LA")
    if clear or image.mode in ("LA", "PA", "RGBA", "RGBa"):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def clean(image: Image.Image) -> Image.Image:
    """The same pixels in a new image without any metadata."""
    return Image.frombytes("RGB", image.size, image.tobytes())


def image_id(image: Image.Image) -> str:
    """A name made from an RGB image's pixels and size: equal pictures, equal ids."""
    return hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()[:20]
