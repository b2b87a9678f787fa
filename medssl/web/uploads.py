"""What visitors upload, read in a child process: a hostile file stops nobody else."""

from __future__ import annotations

import atexit

from medssl.images.picture import Picture
from medssl.images.safe_reader import SafeReader

READER = SafeReader()
atexit.register(READER.close)


def read_upload(path: str, frame: int | None = None) -> Picture:
    """The picture in an uploaded file. Raises ImageError."""
    return READER.read(path, frame)
