"""An image that was read: its RGB pixels and the id that its pixels give it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from medssl.images.read import frame_count, image_id, read_bytes, read_image


@dataclass(frozen=True)
class Picture:
    """An RGB image, and what is to be said of how it was read (`notes`, plain sentences)."""

    image: Image.Image
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, source: Any, frame: int | None = None) -> Picture:  # noqa: ANN401
        """Read anything that `read_image` takes; a Picture passes through. Raises ImageError.

        Without `frame` the first of several frames or pages is taken, and a note says so.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, Image.Image):
            return cls(read_image(source))
        data = read_bytes(source)
        count = frame_count(data) if frame is None else 1
        image = read_image(data, frame or 0)
        note = f"This file holds {count} pictures; the first is shown. Choose another by its number (frame)."
        return cls(image, (note,) if count > 1 else ())

    @cached_property
    def id(self) -> str:
        """A name made from pixels and size: equal pictures, equal ids. Hashed once."""
        return image_id(self.image)
