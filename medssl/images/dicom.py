"""DICOM bytes -> picture: modality LUT, VOI window, inversion and palette as the file says; tags are never shown."""

from __future__ import annotations

import io
import operator
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder, pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from medssl.errors import ImageError

# What Pillow and pydicom meet in damaged or odd files; each means the same to the person who gave the file. A
# Warning is among them for programs that turn warnings into errors: their filters are theirs, and not thread-safe.
DAMAGED = (
    InvalidDicomError,
    BytesLengthException,
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
MAX_INFLATED = 200 * 2**20  # a deflated file may hold 50 megapixels of 32 bit, and no bomb
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
COLOURS = ("Red", "Green", "Blue")
# Nothing else is parsed: a patient's name cannot reach a warning, a log or an error.
WANTED = (
    *PIXELS,
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("SmallestImagePixelValue", "LargestImagePixelValue", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in COLOURS),
)
# An enhanced file keeps these a frame.
FRAME_SETTINGS = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are DICOM: the DICM mark after the preamble, or a plausible first element without one."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 132:
        return False
    if data[:6] == b"\x02\x00\x00\x00UL":
        return True
    # Old files start with group 0008, an early element, and an upper-case VR or a length that the file can hold.
    if data[:2] == b"\x08\x00" and data[3] == 0:
        length = int.from_bytes(data[4:8], "little")
    elif data[:2] == b"\x00\x08" and data[2] == 0:
        length = int.from_bytes(data[4:8], "big")
    else:
        return False
    return (data[4:6].isalpha() and data[4:6].isupper()) or length <= len(data) - 8


def read_dicom(data: bytes, frame: int, check_size: Callable[[int, int], None]) -> Image.Image:
    """The picture of one frame. Raises ImageError for files without pixels, damaged ones and unreadable syntaxes."""
    try:
        check_deflated(data)
        dataset = dcmread(io.BytesIO(data), force=True, specific_tags=list(WANTED))
        return frame_image(dataset, frame, check_size)
    except DAMAGED as error:
        raise ImageError(
            "The DICOM file is damaged or cut off and its picture cannot be read. Export it again."
        ) from error


def check_deflated(data: bytes) -> None:
    """Raises ImageError when a deflated file would grow past 200 MB, before pydicom inflates all of it."""
    position = 132 if data[128:132] == b"DICM" else 0
    syntax = b""
    while data[position : position + 2] == b"\x02\x00":
        tag, vr = data[position : position + 4], data[position + 4 : position + 6]
        header = 12 if vr in (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN") else 8
        length = int.from_bytes(data[position + (8 if header == 12 else 6) : position + header], "little")
        if tag == b"\x02\x00\x10\x00":
            syntax = data[position + header : position + header + length]
        position += header + length
    if syntax.rstrip(b"\0 ") != DeflatedExplicitVRLittleEndian.encode():
        return
    if len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[position:], MAX_INFLATED)) >= MAX_INFLATED:
        raise ImageError(f"The DICOM file unpacks to more than {MAX_INFLATED >> 20} MB. Export the image uncompressed.")


def frame_image(dataset: Dataset, frame: int, check_size: Callable[[int, int], None]) -> Image.Image:
    """One frame of a parsed DICOM data set as an image."""
    if not any(name in dataset for name in PIXELS):
        raise ImageError(
            "This DICOM file holds no picture (no pixel data): a report or structure, perhaps. Give an image."
        )
    check_size(int(dataset.Columns), int(dataset.Rows))
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not 0 <= frame < frames:
        raise ImageError(f"There is no frame {frame}; this DICOM file has {frames}, counted from 0.")
    if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.ensure_file_meta()
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else UID("1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2")
        )
    values = decoded(dataset, frame, frames, check_size)
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(values, dataset)
        # Some makers leave the upper byte of 16-bit palettes empty.
        return Image.fromarray(eight_bit_colour(colours, 65535 if colours.max() > 255 else 255))
    if values.ndim == 3:
        return Image.fromarray(eight_bit_colour(values[..., :3], 2 ** int(dataset.BitsStored) - 1))
    lift_frame_settings(dataset, frame)
    grey = windowed(values, dataset)
    return Image.fromarray(255 - grey if photometric == "MONOCHROME1" else grey).convert("RGB")


def decoded(dataset: Dataset, frame: int, frames: int, check_size: Callable[[int, int], None]) -> np.ndarray:
    """The stored values of a frame, colour as RGB. Raises ImageError naming a syntax that cannot be decoded here."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_transfer_syntax or not syntax.is_encapsulated:
        return pixel_array(dataset, index=frame)
    named = f"This DICOM file is compressed as {syntax.name} ({syntax})"
    advice = "Install the package python-gdcm, or export the image uncompressed."
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise ImageError(f"{named}, which is not read: a video, perhaps. Export one image of it.") from error
    if not available:
        raise ImageError(f"{named}, which cannot be decoded here. {advice}")
    check_codestream(dataset, frame, frames, check_size)
    try:
        return pixel_array(dataset, index=frame)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise ImageError(f"{named}. It is damaged, or of a kind that cannot be decoded here. {advice}") from error


def check_codestream(dataset: Dataset, frame: int, frames: int, check_size: Callable[[int, int], None]) -> None:
    """Check the size that a compressed frame itself claims: decoders follow it, not the Rows and Columns tags."""
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    stream = get_frame(dataset.PixelData, frame, number_of_frames=frames, extended_offsets=offsets)
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        plain = (
            int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated) // 8
        )
        if len(stream) > 1.1 * plain + 4096:  # honest run lengths add one byte in 128
            raise ValueError("The run lengths hold more than the picture.")
        return
    try:
        with Image.open(io.BytesIO(stream), formats=("JPEG", "JPEG2000")) as picture:
            check_size(*picture.size)
    except UnidentifiedImageError:
        return  # not Pillow's: pydicom names the matter


def lift_frame_settings(dataset: Dataset, frame: int) -> None:
    """Copy an enhanced file's rescale and window of that frame to where plain files keep them."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    each = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for group in (*shared[:1], *each[frame : frame + 1]):
        for sequence, names in FRAME_SETTINGS.items():
            for item in (group.get(sequence) or [])[:1]:
                for name in names:
                    if name in item:
                        setattr(dataset, name, item[name].value)


def eight_bit_colour(values: np.ndarray, top: int) -> np.ndarray:
    """Colour values of 0 to `top` as uint8."""
    if values.dtype == np.uint8 and top == 255:
        return np.ascontiguousarray(values)
    return np.round(np.clip(values.astype(np.float64) / top, 0, 1) * 255).astype(np.uint8)


def windowed(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Grey values `[H, W]` as uint8: modality LUT, then the first VOI LUT or window, else 0.5th to 99.5th percentile.

    Padding (PixelPaddingValue) does not count for the percentiles. A window of no width is taken as none. A picture of
    one value becomes mid-grey.
    """
    real = np.asarray(apply_modality_lut(values, dataset))
    finite = np.isfinite(real)
    if not finite.any():
        raise ImageError("The DICOM picture holds no finite value, so there is nothing to see.")
    tables = dataset.get("VOILUTSequence")
    if tables and "LUTData" in tables[0]:
        top = 2 ** int(tables[0].LUTDescriptor[2]) - 1
        return eight_bit_colour(apply_voi_lut(real, dataset), top)
    center, width = first_number(dataset, "WindowCenter"), first_number(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if center is not None and width is not None and (width >= 1 or (width > 0 and function != "LINEAR")):
        return to_shades(through_window(real.astype(np.float64), center, width, function))
    counted = finite
    if dataset.get("PixelPaddingValue") is not None:
        inside = finite & (values != dataset.PixelPaddingValue)
        counted = inside if inside.any() else finite
    low, high = np.percentile(real[counted], (0.5, 99.5))
    if not high > low:
        low, high = float(real[counted].min()), float(real[counted].max())
    if not high > low:
        return np.full(real.shape, 128, np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        return to_shades((real.astype(np.float64) - low) / (high - low))


def first_number(dataset: Dataset, name: str) -> float | None:
    """A number tag's first value, None where it is absent, empty or not finite."""
    value = dataset.get(name)
    if isinstance(value, (MultiValue, list, tuple)):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    return float(value) if np.isfinite(float(value)) else None


def through_window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Values seen through a VOI window, 0 to 1, as DICOM PS3.3 C.11.2.1 defines it."""
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return (values - (center - 0.5)) / (width - 1) + 0.5


def to_shades(shares: np.ndarray) -> np.ndarray:
    """Shares of 0 to 1 as uint8; what lies outside is clipped and what is no number is black."""
    return np.round(np.clip(np.nan_to_num(shares, nan=0.0), 0, 1) * 255).astype(np.uint8)


def frame_number(frame: int) -> int:
    """The frame index as an int. Raises ImageError for anything but a whole number."""
    try:
        if not isinstance(frame, bool):
            return operator.index(frame)
    except TypeError:
        pass
    raise ImageError(f"frame is {frame!r}; allowed is a whole number, counted from 0.")
