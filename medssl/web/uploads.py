"""What visitors upload, read in a child process: a hostile file stops nobody else."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from pathlib import Path

from medssl.errors import ImageError
from medssl.images.dicom import is_dicom
from medssl.images.files import ZIP_MARK
from medssl.images.picture import Picture
from medssl.images.safe_reader import SafePictures, SafeReader

READER = SafeReader()
# Looking at many files may take its time, in which single uploads go on.
MANY = SafeReader(children=1)
MOST_PICTURES = 2000
atexit.register(READER.close)
atexit.register(MANY.close)


def read_upload(path: str, frame: int | None = None) -> Picture:
    """The picture in an uploaded file. Raises ImageError."""
    return READER.read(path, frame)


def is_zip(path: str) -> bool:
    """Whether an uploaded file is a zip, by its content. Raises ImageError where it is no longer there."""
    try:
        with open(path, "rb") as stream:
            return stream.read(len(ZIP_MARK)) == ZIP_MARK
    except FileNotFoundError:
        raise ImageError("The upload is no longer kept. Upload the files again.") from None


def is_dicom_file(path: str) -> bool:
    """Whether an uploaded file is DICOM, by its content."""
    return is_dicom(Path(path).read_bytes())


def read_uploads(paths: Sequence[str]) -> SafePictures:
    """All pictures in uploaded files and zips, decoded when asked for. Raises ImageError, also for more than 2,000."""
    return check_count(list_uploads(paths))


def list_uploads(paths: Sequence[str]) -> SafePictures:
    """All pictures in uploaded files and zips, however many, to look at some of them. Raises ImageError."""
    return MANY.read_many(paths)


def check_count(pictures: SafePictures) -> SafePictures:
    """The same pictures. Raises ImageError for more than 2,000, the most that are analysed at once."""
    if len(pictures) > MOST_PICTURES:
        raise ImageError(
            f"There are {len(pictures)} pictures in what was uploaded; at most {MOST_PICTURES:,} are analysed at once. "
            "Give fewer, or ask from Python (Bundle.analyze_many)."
        )
    return pictures
