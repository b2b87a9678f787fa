"""DICOM bytes -> picture: modality LUT, VOI window, inversion and palette as the file says; tags are never shown."""

from __future__ import annotations

import io
import operator
import zlib

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import _read_file_meta_info, read_dataset, read_partial, read_preamble
from pydicom.pixels import apply_color_lut, get_decoder, pixel_array
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from medssl.errors import ImageError
from medssl.images.codestream import Codestream, read_codestream
from medssl.images.color import to_srgb
from medssl.images.limits import DAMAGED, MAX_ELEMENTS, MAX_INFLATED, MAX_ITEMS, check_size
from medssl.images.shades import scaled
from medssl.images.voi import windowed

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
COLORS = ("Red", "Green", "Blue")
# Where a slice lies, and of which series.
PLACES = ("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber")
# Nothing else is parsed: a patient's name cannot reach a warning, a log or an error.
WANTED = (
    *PIXELS,
    *PLACES,
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("SmallestImagePixelValue", "LargestImagePixelValue", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ICCProfile"),
    *(f"{color}PaletteColorLookupTableDescriptor" for color in COLORS),
    *(f"{color}PaletteColorLookupTableData" for color in COLORS),
    *(f"Segmented{color}PaletteColorLookupTableData" for color in COLORS),
)
WANTED_TAGS: list[BaseTag | int] = [Tag(name) for name in WANTED]
PHOTOMETRICS = (
    *("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB"),
    *("YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "YBR_PARTIAL_422"),
)
# Names of syntaxes that pydicom does not know yet.
NEW_SYNTAXES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
# Which package reads what Pillow and pydicom do not; each was tried, and none is under the GPL.
GDCM, OPENJPEG = "python-gdcm", "pylibjpeg and pylibjpeg-openjpeg"
READERS = {
    **dict.fromkeys(("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"), GDCM),
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), GDCM),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203)), OPENJPEG),
}
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
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


def read_dicom(data: bytes, frame: int) -> Image.Image:
    """The picture of one frame. Raises ImageError for files without pixels, damaged ones and unreadable syntaxes."""
    try:
        return frame_image(parse(data), frame)
    except DAMAGED as error:
        raise ImageError(
            "The DICOM file is damaged or cut off and its picture cannot be read. Export it again."
        ) from error


def count_frames(data: bytes) -> int:
    """How many frames a DICOM file holds; 1 where it does not say."""
    try:
        return int(parse(data).get("NumberOfFrames") or 1)
    except DAMAGED:
        return 1


def parse(data: bytes) -> Dataset:
    """The elements that a picture needs, with bounds on what they may cost.

    Raises ImageError for a file that unpacks to too much or holds too many elements, and what pydicom raises for a
    damaged one.
    """
    stream = io.BytesIO(data)
    read_preamble(stream, force=True)
    meta = _read_file_meta_info(stream)
    syntax = str(meta.get("TransferSyntaxUID", "")).strip(" \0")
    deflated = syntax == DeflatedExplicitVRLittleEndian
    body = inflate(data[stream.tell() :]) if deflated else data
    check_items(body)
    count = 0

    def stop(_tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal count
        count += 1
        if count > MAX_ELEMENTS:
            raise ImageError(f"The DICOM file has more than {MAX_ELEMENTS} elements. Export the image anew.")
        return False

    if deflated:
        # Never by pydicom, which inflates without a bound.
        dataset = read_dataset(io.BytesIO(body), False, True, stop_when=stop, specific_tags=WANTED_TAGS)
        dataset.file_meta = FileMetaDataset(meta)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return dataset
    dataset = read_partial(io.BytesIO(data), stop_when=stop, force=True, specific_tags=WANTED_TAGS)
    if "TransferSyntaxUID" in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def inflate(packed: bytes) -> bytes:
    """Deflated bytes unpacked. Raises ImageError past 200 MB."""
    body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, MAX_INFLATED)
    if len(body) >= MAX_INFLATED:
        raise ImageError(f"The DICOM file unpacks to more than {MAX_INFLATED >> 20} MB. Export the image uncompressed.")
    return body


def check_items(body: bytes) -> None:
    """Raises ImageError when the sequences of a file hold more items than any picture needs."""
    if max(body.count(b"\xfe\xff\x00\xe0"), body.count(b"\xff\xfe\xe0\x00")) > MAX_ITEMS:
        raise ImageError(f"The DICOM file holds more than {MAX_ITEMS} sequence items. Export the image anew.")


def frame_image(dataset: Dataset, frame: int) -> Image.Image:
    """One frame of a parsed DICOM data set as an image."""
    if not any(name in dataset for name in PIXELS):
        raise ImageError(
            "This DICOM file holds no picture (no pixel data): a report or structure, perhaps. Give an image."
        )
    check_size(int(dataset.Columns), int(dataset.Rows))
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not 0 <= frame < frames:
        raise ImageError(f"There is no frame {frame}; this DICOM file has {frames}, counted from 0.")
    complete(dataset)
    values = decoded(dataset, frame, frames)
    photometric = dataset.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        colors = apply_color_lut(values, dataset)
        # Some makers leave the upper byte of 16-bit palettes empty.
        return Image.fromarray(scaled(colors, 65535 if colors.max() > 255 else 255))
    if values.ndim == 3:
        picture = Image.fromarray(scaled(values[..., :3], 2 ** int(dataset.BitsStored) - 1))
        return to_srgb(picture, dataset.get("ICCProfile"))
    lift_frame_settings(dataset, frame)
    gray = windowed(values, dataset)
    return Image.fromarray(255 - gray if photometric == "MONOCHROME1" else gray).convert("RGB")


def complete(dataset: Dataset) -> None:
    """Fill in what makers leave out, or write in their own way, of the description of the pixels."""
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip(" \0").upper().replace("_", " ")
    samples = dataset.get("SamplesPerPixel")
    if not samples:
        samples = 3 if photometric.startswith(("RGB", "YBR")) else 1
    # The names of YBR kinds hold an underscore: YBR_FULL_422.
    names = {name.replace("_", " "): name for name in PHOTOMETRICS}
    default = "MONOCHROME2" if int(samples) == 1 else "RGB"
    dataset.PhotometricInterpretation = names.get(photometric, photometric) or default
    dataset.SamplesPerPixel = int(samples)
    stored = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    dataset.BitsStored = stored
    if dataset.get("HighBit") is None:
        dataset.HighBit = stored - 1
    if dataset.get("PixelRepresentation") is None:
        dataset.PixelRepresentation = 0
    if int(samples) > 1 and dataset.get("PlanarConfiguration") is None:
        dataset.PlanarConfiguration = 0
    if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.ensure_file_meta()
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else UID("1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2")
        )


def decoded(dataset: Dataset, frame: int, frames: int) -> np.ndarray:
    """The stored values of a frame, color as RGB. Raises ImageError naming a syntax that cannot be decoded here."""
    syntax = dataset.file_meta.TransferSyntaxUID
    name = NEW_SYNTAXES.get(syntax, syntax.name)
    named = f"This DICOM file is compressed as {name} ({syntax})"
    plain = "Export the image uncompressed."
    if syntax in NEW_SYNTAXES:
        raise ImageError(f"{named}, which is not read. {plain}")
    if not syntax.is_transfer_syntax or not syntax.is_encapsulated:
        return sample_bits(pixel_array(dataset, index=frame, correct_unused_bits=False), dataset)
    reader = READERS.get(syntax)
    advice = f"Install the package {reader}, or export the image uncompressed." if reader else plain
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError as error:
        kind = "which is a video: export one image of it" if is_video(name) else f"which is not read. {plain}"
        raise ImageError(f"{named}, {kind.rstrip('.')}.") from error
    if not available:
        raise ImageError(f"{named}, which cannot be decoded here. {advice}")
    header = check_codestream(dataset, frame, frames)
    if syntax == JPEG_EXTENDED and header is not None and header.precision > 8:
        raise ImageError(f"{named} with {header.precision} bits a sample, which is not read. {plain}")
    try:
        values = pixel_array(dataset, index=frame, correct_unused_bits=False)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise ImageError(f"{named}. It is damaged, or of a kind that cannot be decoded here. {advice}") from error
    # A stream of the stored bits alone is aligned already; a longer one holds the whole word.
    whole = syntax == RLELossless or (header is not None and header.precision > int(dataset.BitsStored))
    return sample_bits(values, dataset) if whole else values


def is_video(name: str) -> bool:
    """Whether a transfer syntax of that name holds a video."""
    return any(word in name for word in ("MPEG", "HEVC", "SMPTE"))


def sample_bits(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """The stored bits of integer words: shifted down from HighBit, overlays and other unused bits cleared."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    stored, allocated = int(dataset.BitsStored), 8 * values.dtype.itemsize
    shift = int(dataset.HighBit) + 1 - stored
    if values.dtype.kind not in "iu" or stored >= allocated or not 0 <= shift <= allocated - stored:
        return values
    words = values.view(f"u{values.dtype.itemsize}") >> shift
    left = allocated - stored
    words = (words << left).astype(words.dtype)
    return (words.view(values.dtype) >> left) if values.dtype.kind == "i" else words >> left


def check_codestream(dataset: Dataset, frame: int, frames: int) -> Codestream | None:
    """What a compressed frame itself claims, its size checked: decoders follow it, not the Rows and Columns tags."""
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
        return None
    header = read_codestream(stream)
    if header is not None:
        check_size(header.width, header.height)
    return header


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


def frame_number(frame: int) -> int:
    """The frame index as an int. Raises ImageError for anything but a whole number."""
    try:
        if not isinstance(frame, bool):
            return operator.index(frame)
    except TypeError:
        pass
    raise ImageError(f"frame is {frame!r}; allowed is a whole number, counted from 0.")
