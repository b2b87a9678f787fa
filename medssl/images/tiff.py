"""TIFF pages: what Pillow reads wrongly or not at all (wide, signed, planar, white is zero) by tifffile."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from tifffile import PHOTOMETRIC, TiffFile, TiffPage

from medssl.errors import ImageError
from medssl.images.limits import check_size
from medssl.images.orientation import ORIENTATION_TAG, upright
from medssl.images.shades import scaled, sixteen_bit_shades

REDUCED, MASK = 1, 4  # bits of NewSubfileType
SIGNED, FLOAT = 2, 3  # SampleFormat
PHOTOMETRIC_TAG, BITS_TAG, SAMPLE_FORMAT_TAG = 262, 258, 339


def main_pages(pages: list[TiffPage]) -> list[int]:
    """The places of the pages that are pictures of their own: no thumbnails, pyramid levels or masks."""
    kept = [place for place, page in enumerate(pages) if not page.subfiletype & (REDUCED | MASK)]
    return kept or list(range(len(pages)))


def count_pages(data: bytes) -> int:
    """How many pictures a TIFF file holds."""
    with TiffFile(io.BytesIO(data)) as file:
        return len(main_pages([page.aspage() for page in file.pages]))


def read_tiff(data: bytes, number: int) -> Image.Image | int:
    """A page as an image, or its place in the file where Pillow reads it rightly. Raises ImageError.

    Raises what tifffile does for damaged files.
    """
    with TiffFile(io.BytesIO(data)) as file:
        pages = [page.aspage() for page in file.pages]
        places = main_pages(pages)
        if not 0 <= number < len(places):
            raise ImageError(f"There is no page {number}; this TIFF file has {len(places)}, counted from 0.")
        page = pages[places[number]]
        check_size(page.imagewidth, page.imagelength)
        if not needs_tifffile(page):
            return places[number]
        try:
            values = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            if page.samplesperpixel == 1:
                return places[number]  # grey: Pillow decodes it, and `wide_values` reads its numbers rightly
            raise ImageError(
                f"This TIFF file holds {page.bitspersample}-bit color in separate planes, compressed as "
                f"{standard_name(page.compression)}, which is not read. Save it uncompressed, or as PNG."
            ) from error
        image = gray_image(values, page) if values.ndim == 2 else color_image(values, page)
        orientation = page.tags.get(ORIENTATION_TAG)
        return upright(image, int(orientation.value) if orientation is not None else None)


def standard_name(value: int) -> str:
    """What the standard calls a value of a tag; the number itself where it calls it nothing."""
    return str(getattr(value, "name", value))


def needs_tifffile(page: TiffPage) -> bool:
    """Whether Pillow would read this page wrongly, or refuse it."""
    if page.sampleformat in (SIGNED, FLOAT):
        return True
    if page.samplesperpixel == 1:
        return page.bitspersample > 8
    return page.bitspersample > 16 or (page.bitspersample == 16 and page.planarconfig == 2)


def gray_image(values: np.ndarray, page: TiffPage) -> Image.Image:
    """Numbers `[H, W]` as shades, white and black as the page says."""
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        values = negative(values)
    return Image.fromarray(sixteen_bit_shades(values)).convert("RGB")


def color_image(values: np.ndarray, page: TiffPage) -> Image.Image:
    """Numbers `[H, W, S]` or `[S, H, W]` as RGB, an alpha channel on white. Raises ImageError for other channels."""
    if page.planarconfig == 2:
        values = np.moveaxis(values, 0, -1)
    channels = values.shape[-1]
    if channels in (1, 2):
        return gray_image(values[..., 0], page)
    if page.photometric != PHOTOMETRIC.RGB or channels not in (3, 4):
        raise ImageError(
            f"This TIFF file holds {channels} channels of {page.bitspersample} bits as "
            f"{standard_name(page.photometric)}; allowed are grey and RGB. Save it as RGB."
        )
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        top = 1.0 if not finite.size or finite.max() <= 1 else float(finite.max())
    else:
        if values.dtype.kind == "i":
            values = values.astype(np.int64) - np.iinfo(values.dtype).min
        top = float(2**page.bitspersample - 1)
    shades = scaled(values, top)
    return Image.fromarray(shades, "RGB" if channels == 3 else "RGBA")


def negative(values: np.ndarray) -> np.ndarray:
    """Values with white and black exchanged, none overflowing."""
    if values.dtype.kind == "u":
        return np.iinfo(values.dtype).max - values
    return -values.astype(np.float64)


def wide_values(image: Image.Image) -> np.ndarray:
    """The numbers `[H, W]` of a wide grey Pillow image; of a TIFF as its tags say, which Pillow only partly follows."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return values
    first = {tag: int(np.atleast_1d(tags.get(tag, 1))[0]) for tag in (BITS_TAG, SAMPLE_FORMAT_TAG)}
    if values.dtype == np.int32 and first[SAMPLE_FORMAT_TAG] not in (SIGNED, FLOAT) and first[BITS_TAG] == 32:
        values = values.view(np.uint32)
    return negative(values) if tags.get(PHOTOMETRIC_TAG) == 0 else values
