"""NIfTI volumes -> pictures: slices in one orientation, whatever the file's own, seen through one window."""

from __future__ import annotations

import gzip
import io
from functools import cached_property

import nibabel
import numpy as np
from nibabel.orientations import io_orientation
from PIL import Image

from medssl.errors import ImageError
from medssl.images.limits import DAMAGED, MAX_FRAMES, MAX_INFLATED, check_size
from medssl.images.shades import to_shades

GZIP = b"\x1f\x8b"
HEADER = 540  # bytes: the longer of the two headers
# Size of the header as the first number, in either byte order, and the mark of a file that also holds the volume.
NIFTI_1 = ((b"\x5c\x01\0\0", b"\0\0\x01\x5c"), b"n+1\0", 344)
NIFTI_2 = ((b"\x1c\x02\0\0", b"\0\0\x02\x1c"), b"n+2\0", 4)
# What a slice across an axis is called, by the axis in the order right, anterior, superior.
PLANES = ("sagittal", "coronal", "axial")
TAIL = 0.5  # per cent at each end that a volume without a window is stretched over
SAMPLED_SLICES = 9  # whose values the percentiles are of
DAMAGED_VOLUME = "The NIfTI file is damaged or cut off and cannot be read. Export it again."


def is_nifti(data: bytes) -> bool:
    """Whether the bytes are a NIfTI file that holds its volume, gzipped or not."""
    head = data[:HEADER]
    if head[:2] == GZIP:
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                head = stream.read(HEADER)
        except DAMAGED:
            return False
    return any(head[:4] in sizes and head[at : at + 4] == mark for sizes, mark, at in (NIFTI_1, NIFTI_2))


def unpacked(data: bytes) -> bytes:
    """The bytes of a volume that may be gzipped. Raises ImageError past 200 MB."""
    if data[:2] != GZIP:
        return data
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        plain = stream.read(MAX_INFLATED + 1)
    if len(plain) > MAX_INFLATED:
        raise ImageError(
            f"The NIfTI file unpacks to more than {MAX_INFLATED >> 20} MB, the most that is read. Cut the volume, or "
            "save it with fewer bits."
        )
    return plain


class Volume:
    """The slices of a NIfTI volume, decoded one at a time; of several volumes in time, one volume after the other.

    Slices lie across the axis with the coarsest spacing (so that they show the finest grid; of equal ones the
    superior axis), or as `plane` says: "axial", "coronal" or "sagittal". They are counted along that axis to the
    right, front or top, and shown as radiologists see them: patient's right at the left, front or top at the top.
    All are seen through one window: the file's (cal_min, cal_max), else the 0.5th to 99.5th percentile. Raises
    ImageError.
    """

    def __init__(self, data: bytes, plane: str | None = None) -> None:
        if plane is not None and plane not in PLANES:
            raise ImageError(f"plane is {plane!r}; allowed: {', '.join(PLANES)}.")
        try:
            plain = unpacked(data)
            kind = nibabel.Nifti1Image if plain[NIFTI_1[2] :][:4] == NIFTI_1[1] else nibabel.Nifti2Image
            self._image = kind.from_bytes(plain)
            self._read_layout(plane)
        except DAMAGED as error:
            raise ImageError(DAMAGED_VOLUME) from error

    def _read_layout(self, plane: str | None) -> None:
        header, shape = self._image.header, self._image.shape
        if self._image.get_data_dtype().kind == "c":
            raise ImageError("The NIfTI file holds complex numbers, which are no picture. Save their magnitude.")
        self._shape = (*shape, 1, 1, 1)[:3] if len(shape) < 3 else shape[:3]
        self._more = shape[3:]
        self.notes: tuple[str, ...] = ()
        axes = io_orientation(self._image.affine)
        unsaid = not header["qform_code"] and not header["sform_code"]
        if unsaid or not np.isfinite(axes).all():
            self.notes = ("This volume does not say how the body lies in it; it is shown as it is stored.",)
        if not np.isfinite(axes).all():
            axes = np.array([[0, 1], [1, 1], [2, 1]])
        # Of the three canonical axes (right, anterior, superior): which stored axis it is, and whether it runs forward.
        self._stored = [int(np.flatnonzero(axes[:, 0] == axis)[0]) for axis in range(3)]
        self._forward = [bool(axes[stored, 1] > 0) for stored in self._stored]
        sizes = [int(self._shape[stored]) for stored in self._stored]
        self._across = PLANES.index(plane) if plane else self._coarsest(sizes)
        self._slices = sizes[self._across]
        self.count = self._slices * int(np.prod(self._more, dtype=np.int64))
        self.middle = self._slices // 2
        self._down, self._along = sorted((axis for axis in range(3) if axis != self._across), reverse=True)
        check_size(sizes[self._along], sizes[self._down])
        if not 0 < self.count <= MAX_FRAMES:
            raise ImageError(f"The NIfTI file holds {self.count} slices; 1 to {MAX_FRAMES} are read.")

    def _coarsest(self, sizes: list[int]) -> int:
        """The canonical axis that slices lie across unless told otherwise: a single slice's own, else the coarsest."""
        flat = [axis for axis, size in enumerate(sizes) if size == 1]
        if len(flat) == 1:
            return flat[0]
        zooms = (*self._image.header.get_zooms(), 1, 1, 1)[:3]
        spacing = np.round([float(zooms[stored]) for stored in self._stored], 3)
        return 2 - int(np.argmax(spacing[::-1]))

    @property
    def plane(self) -> str:
        """How the slices lie: axial, coronal or sagittal."""
        return PLANES[self._across]

    def image(self, number: int) -> Image.Image:
        """The RGB picture of a slice. Raises ImageError for one that there is not, and for damaged ones."""
        if not 0 <= number < self.count:
            raise ImageError(f"There is no slice {number}; this NIfTI file has {self.count}, counted from 0.")
        try:
            values = self._values(number)
            if values.dtype.names:
                return Image.fromarray(np.stack([values[name] for name in ("R", "G", "B")], axis=-1), "RGB")
            low, high = self._window
            if not high > low:
                return Image.new("RGB", values.shape[::-1], (128, 128, 128))
            return Image.fromarray(to_shades((values.astype(np.float64) - low) / (high - low))).convert("RGB")
        except DAMAGED as error:
            raise ImageError(DAMAGED_VOLUME) from error

    def _values(self, number: int) -> np.ndarray:
        """The numbers `[H, W]` of a slice, as it is shown; nothing else of the volume is decoded."""
        time, place = divmod(number, self._slices)
        index: list = [slice(None)] * 3
        index[self._stored[self._across]] = place if self._forward[self._across] else self._slices - 1 - place
        index = index[: len(self._image.shape)] + list(np.unravel_index(time, self._more) if self._more else ())
        plane = np.asarray(self._image.dataobj[tuple(index)])
        rest = [axis for axis in range(3) if axis != self._stored[self._across]]
        plane = plane.reshape([self._shape[axis] for axis in rest])
        if self._stored[self._down] > self._stored[self._along]:
            plane = plane.T
        # The patient's right, front and top are at the end of their axes, and are shown at the start.
        rows, columns = (-1 if self._forward[axis] else 1 for axis in (self._down, self._along))
        return np.ascontiguousarray(plane[::rows, ::columns])

    @cached_property
    def _window(self) -> tuple[float, float]:
        """The values that are shown black and white."""
        low, high = (float(self._image.header[name]) for name in ("cal_min", "cal_max"))
        if np.isfinite([low, high]).all() and high > low:
            return low, high
        chosen = np.unique(np.linspace(0, self.count - 1, SAMPLED_SLICES).round().astype(int))
        sample = np.concatenate([self._thinned(int(number)) for number in chosen])
        if not sample.size:
            raise ImageError("The NIfTI file holds no finite value, so there is nothing to see. Export it again.")
        low, high = np.percentile(sample, (TAIL, 100 - TAIL))
        return (float(low), float(high)) if high > low else (float(sample.min()), float(sample.max()))

    def _thinned(self, number: int) -> np.ndarray:
        """Finite values `[N]` of a slice, at most about a quarter of a million, evenly taken."""
        values = self._values(number).astype(np.float32).ravel()
        values = values[:: values.size // 250_000 + 1]
        return values[np.isfinite(values)]
