"""What a picture may cost, and what decoders raise on files that are damaged or made to harm."""

from __future__ import annotations

import struct
import zlib

from PIL import Image
from pydicom.errors import BytesLengthException, InvalidDicomError
from tifffile import TiffFileError

from medssl.errors import ImageError

MAX_BYTES = 50 * 2**20
MAX_PIXELS = 50_000_000
MAX_UPLOAD_PIXELS = 25_000_000  # of strangers' files: a WebP takes about 20 bytes a pixel to decode
MAX_INFLATED = 200 * 2**20  # a deflated file may hold 50 megapixels of 32 bit, and no bomb
MAX_ITEMS = 100_000  # of all sequences of a DICOM file; each costs about 650 bytes and 20 microseconds
MAX_ELEMENTS = 100_000  # of the top level of a DICOM file
# What Pillow and pydicom meet in damaged or odd files; each means the same to the person who gave the file. A
# Warning is among them for programs that turn warnings into errors: their filters are theirs, and not thread-safe.
DAMAGED = (
    InvalidDicomError,
    BytesLengthException,
    TiffFileError,  # a ValueError only in newer versions
    Image.DecompressionBombError,
    ValueError,
    AttributeError,
    LookupError,
    TypeError,
    OSError,
    EOFError,
    SyntaxError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    StopIteration,
    Warning,
    struct.error,
    zlib.error,
)


def too_large(most: int = MAX_PIXELS) -> str:
    """The sentence for an image with too many pixels."""
    return f"The image has more than {most // 10**6} megapixels, the most that is read. Give a smaller one."


def check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Raises ImageError for an image without pixels or with more than `most` (50 million)."""
    if width < 1 or height < 1:
        raise ImageError("The image has no pixels.")
    if width * height > most:
        raise ImageError(too_large(most))
