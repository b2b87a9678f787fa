"""An image that was read: its RGB pixels, the id that they give it, and which picture of its file it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from medssl.images.dicom import is_dicom
from medssl.images.nifti import Volume, is_nifti
from medssl.images.read import frame_count, frame_number, image_id, read_bytes, read_image


@dataclass(frozen=True)
class Picture:
    """An RGB image, what is to be said of how it was read (`notes`, plain sentences), and where it stood.

    It is number `frame` (from 0) of the `frames` pictures of its file; `name` is the file's where it is known, `dicom`
    whether that is DICOM.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()
    frame: int = 0
    frames: int = 1
    name: str = ""
    dicom: bool = False

    @classmethod
    def read(cls, source: Any, frame: int | None = None) -> Picture:  # noqa: ANN401
        """Read anything that `read_image` takes; a Picture passes through. Raises ImageError.

        Without `frame` the first of several frames or pages is taken, of a volume the middle slice, and a note says so.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, Image.Image):
            return cls(read_image(source))
        return PictureFile(read_bytes(source)).picture(frame)

    @cached_property
    def id(self) -> str:
        """A name made from pixels and size: equal pictures, equal ids. Hashed once."""
        return image_id(self.image)


class PictureFile:
    """The pictures in the bytes of one file, decoded one at a time.

    `plane` says how the slices of a NIfTI volume lie, see `Volume`. Raises ImageError for a volume that cannot be read.
    """

    def __init__(self, data: bytes, plane: str | None = None) -> None:
        self._data = data
        self._volume = Volume(data, plane) if is_nifti(data) else None
        self.frames = self._volume.count if self._volume else frame_count(data)

    def picture(self, frame: int | None = None, name: str = "") -> Picture:
        """The picture of that number, None for the one that is meant where nobody chose. Raises ImageError."""
        usual = self._volume.middle if self._volume else 0
        number = usual if frame is None else frame_number(frame)
        image = self._volume.image(number) if self._volume else read_image(self._data, number)
        notes = self._volume.notes if self._volume else ()
        if self.frames > 1 and frame is None:
            notes = (self._unasked(number), *notes)
        return Picture(image, notes, number, self.frames, name, is_dicom(self._data))

    def _unasked(self, number: int) -> str:
        """That there are more pictures than the one that nobody chose."""
        of = f"{self._volume.plane} slices" if self._volume else "pictures"
        which = f"the middle one (number {number}, counted from 0)" if number else "the first"
        return f"This file holds {self.frames} {of}; {which} is shown. Choose another by its number (frame)."
