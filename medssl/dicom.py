"""DICOM bytes -> picture: modality LUT, VOI window, inversion and palette as the file says; tags are never shown."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import UID

from medssl.errors import ImageError

# What pydicom meets in damaged or odd files; each means the same to the person who gave the file.
DAMAGED = (
    InvalidDicomError,
    BytesLengthException,
    ValueError,
    AttributeError,
    KeyError,
    TypeError,
    IndexError,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
    struct.error,
)


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are DICOM: the DICM mark after the preamble, or an early element group without one."""
    if data[128:132] == b"DICM":
        return True
    # Old files start with group 0008 (little endian), an even element number, and a plausible text VR or length.
    return data[:2] == b"\x08\x00" and data[3:4] == b"\x00" and len(data) > 132


def read_dicom(data: bytes, frame: int, check_size: Callable[[int, int], None]) -> Image.Image:
    """The picture of one frame. Raises ImageError for files without pixels, damaged ones and unreadable syntaxes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(io.BytesIO(data), force=True)
            return frame_image(dataset, frame, check_size)
    except ImageError:
        raise
    except DAMAGED as error:
        raise ImageError(
            "The DICOM file is damaged or cut off and its picture cannot be read. Export it again."
        ) from error


def frame_image(dataset: Dataset, frame: int, check_size: Callable[[int, int], None]) -> Image.Image:
    """One frame of a parsed DICOM data set as an image."""
    if "PixelData" not in dataset and "FloatPixelData" not in dataset and "DoubleFloatPixelData" not in dataset:
        raise ImageError(
            "This DICOM file holds no picture (no pixel data): a report or structure, perhaps. Give an image."
        )
    check_size(int(dataset.Columns), int(dataset.Rows))
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not 0 <= frame < frames:
        raise ImageError(f"There is no frame {frame}; this DICOM file has {frames}, counted from 0.")
    if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
        dataset.ensure_file_meta()
        dataset.file_meta.TransferSyntaxUID = UID(
            "1.2.840.10008.1.2" if dataset.original_encoding[0] else "1.2.840.10008.1.2.1"
        )
    values = decoded(dataset, frame)
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        return Image.fromarray(eight_bit_colour(apply_color_lut(values, dataset)))
    if values.ndim == 3:
        return Image.fromarray(eight_bit_colour(values[..., :3]))
    grey = windowed(values, dataset)
    return Image.fromarray(255 - grey if photometric == "MONOCHROME1" else grey).convert("RGB")


def decoded(dataset: Dataset, frame: int) -> np.ndarray:
    """The stored values of a frame, colour as RGB. Raises ImageError naming a syntax that cannot be decoded here."""
    try:
        return pixel_array(dataset, index=frame)
    except (RuntimeError, NotImplementedError) as error:
        syntax = dataset.file_meta.TransferSyntaxUID
        if not syntax.is_compressed:
            raise
        raise ImageError(
            f"This DICOM file is compressed as {syntax.name} ({syntax}), which cannot be decoded here. Install the "
            "package python-gdcm, or export the image uncompressed."
        ) from error


def eight_bit_colour(values: np.ndarray) -> np.ndarray:
    """Colour values as uint8; 16-bit ones by their own range."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    top = 65535 if values.max() > 4095 else 4095 if values.max() > 255 else 255
    return np.round(np.clip(values.astype(np.float64) / top, 0, 1) * 255).astype(np.uint8)


def windowed(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Grey values as uint8: modality LUT, then the VOI window or LUT, else the 0.5th to 99.5th percentile."""
    real = apply_modality_lut(values, dataset)
    if "WindowCenter" in dataset or "VOILUTSequence" in dataset:
        shown = np.asarray(apply_voi_lut(real, dataset), np.float64)
        low, high = shown.min(), shown.max()
        if "WindowCenter" in dataset and "VOILUTSequence" not in dataset:
            low, high = window_range(real, dataset)
    else:
        shown = np.asarray(real, np.float64)
        low, high = np.percentile(shown[np.isfinite(shown)], (0.5, 99.5)) if np.isfinite(shown).any() else (0, 0)
    if not np.isfinite(shown).any():
        raise ImageError("The DICOM picture holds no finite value, so there is nothing to see.")
    if high <= low:
        low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
    if not high > low:
        return np.full(shown.shape, 128, np.uint8)
    return np.round(np.clip((np.nan_to_num(shown, nan=low) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def window_range(values: np.ndarray, dataset: Dataset) -> tuple[float, float]:
    """The output range that `apply_voi_lut` maps a window to: what the stored bits can hold, after the modality LUT."""
    signed = int(dataset.get("PixelRepresentation", 0))
    bits = int(dataset.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if "ModalityLUTSequence" in dataset:
        return 0.0, float(2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    slope, intercept = float(dataset.get("RescaleSlope", 1) or 1), float(dataset.get("RescaleIntercept", 0) or 0)
    ends = (low * slope + intercept, high * slope + intercept)
    return min(ends), max(ends)
