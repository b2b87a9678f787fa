"""Stored DICOM values -> shades of grey: modality LUT, then VOI LUT or window, as the file says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue

from medssl.errors import ImageError
from medssl.images.shades import scaled, stretched, to_shades

TAIL = 0.5  # per cent at each end that a picture without a window is stretched over


def number(dataset: Dataset, name: str) -> float | None:
    """A number tag's first value, None where it is absent, empty or not finite; decimal commas are read as points."""
    tag = tag_for_keyword(name)
    if tag is None or tag not in dataset:
        return None
    element = dataset.get_item(tag)
    value = element.value
    if isinstance(element, RawDataElement):
        # Read by hand: pydicom refuses a decimal comma.
        if element.VR not in (None, "DS", "IS", "UN"):
            value = dataset[tag].value
        else:
            value = (value or b"").decode("ascii", "replace").split("\\")[0].strip(" \0").replace(",", ".")
    if isinstance(value, (MultiValue, list, tuple)):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    return float(value) if np.isfinite(float(value)) else None


@dataclass(frozen=True)
class LookupTable:
    """A LUT of a DICOM file: `table [N]`, the value that its first entry stands for, and the largest it may hold."""

    table: np.ndarray
    first: int
    top: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The entries of values; what lies outside takes the nearest entry."""
        index = np.clip(np.asarray(values, np.int64) - self.first, 0, len(self.table) - 1)
        return self.table[index]


def read_table(item: Dataset, negative: bool) -> LookupTable:
    """The table of a LUT sequence's item; `negative`: whether the values that it maps can be below 0.

    Tables are met in every layout: 16-bit words or bytes, two 8-bit entries in a word, descriptors read as signed or
    unsigned, more bits said than held. Raises ValueError for one that holds nothing.
    """
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries & 0xFFFF or 65536
    if negative and first > 32767:
        first -= 65536
    elif not negative and first < 0:
        first += 65536
    data = item["LUTData"].value
    if isinstance(data, (bytes, bytearray)):
        words = np.frombuffer(bytes(data), np.uint8 if len(data) < 2 * entries else "<u2").astype(np.int64)
        if words.size > entries and bits <= 8 and words.max() <= 255:
            words = words[:entries]
    else:
        words = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    if bits <= 8 and words.size < entries and words.size >= (entries + 1) // 2:
        words = np.stack([words & 0xFF, words >> 8], axis=1).ravel()  # two entries a word, the low byte first
    table = words[:entries]
    if not table.size:
        raise ValueError("The lookup table is empty.")
    held = max(1, int(table.max()).bit_length())
    # Some makers say 16 bits and fill 12: then the brightest entry would be a dark grey.
    used = held if bits > 8 or held > bits else bits
    return LookupTable(table, first, 2**used - 1)


def modality_values(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored values `[H, W]` in the modality's units: by its LUT, or slope and intercept (a slope of 0 is ignored)."""
    sequence = dataset.get("ModalityLUTSequence")
    if sequence and "LUTData" in sequence[0]:
        return read_table(sequence[0], bool((values < 0).any()))(values)
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if not slope or (slope == 1 and not intercept):
        return values
    return values.astype(np.float64) * slope + (intercept or 0.0)


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


def as_stored(values: np.ndarray, dataset: Dataset) -> bool:
    """Whether unsigned values of at most 8 bits without any mapping are shown as they are."""
    return int(dataset.BitsStored) <= 8 and values.dtype.kind in "iu" and not (values < 0).any()


def windowed(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Grey values `[H, W]` as uint8.

    Modality LUT, then the first VOI LUT or window. Without one, 8-bit pictures are shown as stored and wider ones
    stretched from the 0.5th to the 99.5th percentile, for which padding (PixelPaddingValue) does not count. A window
    of no width is taken as none. A picture of one value becomes mid-grey.
    """
    real = np.asarray(modality_values(values, dataset))
    finite = np.isfinite(real)
    if not finite.any():
        raise ImageError("The DICOM picture holds no finite value, so there is nothing to see.")
    tables: Sequence[Dataset] = dataset.get("VOILUTSequence") or ()
    if tables and "LUTData" in tables[0]:
        table = read_table(tables[0], bool((real[finite] < 0).any()))
        return scaled(table(np.round(np.nan_to_num(real))), table.top)
    center, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if center is not None and width is not None and (width >= 1 or (width > 0 and function != "LINEAR")):
        return to_shades(through_window(real.astype(np.float64), center, width, function))
    if real is values and as_stored(values, dataset):
        return scaled(values, 2 ** int(dataset.BitsStored) - 1)
    counted = finite
    padding = dataset.get("PixelPaddingValue")
    if padding is not None:
        inside = finite & (values != padding)
        counted = inside if inside.any() else finite
    return stretched(real, counted, TAIL)
