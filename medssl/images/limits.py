"""What a picture may cost, and what decoders raise on files that are damaged or made to harm."""

from __future__ import annotations

import struct
import zlib
from contextvars import ContextVar

from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from PIL import Image
from pydicom.errors import BytesLengthException, InvalidDicomError
from tifffile import TiffFileError

from medssl.errors import ImageError

MAX_BYTES = 50 * 2**20
MAX_PIXELS = 50_000_000
MAX_UPLOAD_PIXELS = 25_000_000  # of strangers' files: a WebP takes about 20 bytes a pixel to decode
MAX_INFLATED = 200 * 2**20  # a deflated file may hold 50 megapixels of 32 bit, and no bomb
MAX_FRAMES = 10_000  # of one file
MAX_FILES = 10_000  # of a zip, or of one upload of several files
MAX_UNPACKED = 2**30  # all files of a zip together
MAX_RATIO = 200  # bytes that a zip of more than MAX_BYTES may unpack to, for each of its own
MAX_ITEMS = 100_000  # of all sequences of a DICOM file; each costs about 650 bytes and 20 microseconds
MAX_ELEMENTS = 100_000  # of the top level of a DICOM file
# What Pillow, pydicom, tifffile and nibabel meet in damaged or odd files; each means the same to the person who gave
# the file. A Warning is among them for programs that turn warnings into errors: their filters are theirs, and not
# thread-safe.
DAMAGED = (
    InvalidDicomError,
    BytesLengthException,
    ImageFileError,
    HeaderDataError,
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


# How many pixels a picture may have for whom it is read now: a process that reads strangers' files sets it lower.
MOST_PIXELS: ContextVar[int] = ContextVar("most_pixels", default=MAX_PIXELS)


def too_large() -> str:
    """The sentence for an image with too many pixels."""
    most = MOST_PIXELS.get() // 10**6
    return f"The image has more than {most} megapixels, the most that is read. Give a smaller one."


def check_size(width: int, height: int) -> None:
    """Raises ImageError for an image without pixels or with more than may be read."""
    if width < 1 or height < 1:
        raise ImageError("The image has no pixels.")
    if width * height > MOST_PIXELS.get():
        raise ImageError(too_large())
