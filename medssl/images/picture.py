"""An image that was read: its RGB pixels and the id that its pixels give it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from medssl.images.read import image_id, read_image


@dataclass(frozen=True)
class Picture:
    """An RGB image, and what is to be said of how it was read (`notes`, plain sentences)."""

    image: Image.Image
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, source: Any) -> Picture:  # noqa: ANN401
        """Read anything that `read_image` takes; a Picture passes through. Raises ImageError."""
        return source if isinstance(source, cls) else cls(read_image(source))

    @cached_property
    def id(self) -> str:
        """A name made from pixels and size: equal pictures, equal ids. Hashed once."""
        return image_id(self.image)
