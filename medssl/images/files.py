"""The files in a folder, a zip or a list of both, by name; each is read when asked for, nothing is unpacked to disk."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from medssl.errors import ImageError
from medssl.images.limits import DAMAGED, MAX_BYTES, MAX_FILES, MAX_RATIO, MAX_UNPACKED
from medssl.images.read import read_bytes, read_path

ZIP_MARK = b"PK\x03\x04"
# Tables, texts and programs that lie beside pictures.
NOT_IMAGES = {".csv", ".json", ".jsonl", ".md", ".txt", ".parquet", ".py"}
NOT_IMAGE_NAMES = {"DICOMDIR", "LICENSE", "README", "VERSION", "LOCKFILE", "Thumbs.db"}
NOT_IMAGE_FOLDERS = {"__MACOSX"}
ENCRYPTED = 0x1  # flag of a zip's entry
FILE_MODE = 16  # where a zip's entry keeps the Unix mode

Files = dict[str, Callable[[], bytes]]


def is_image_name(name: str) -> bool:
    """Whether a file of that name (parts parted by /) may hold pictures: no table, text, hidden or system file."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part in NOT_IMAGE_FOLDERS for part in path.parts)
    return not hidden and path.suffix.lower() not in NOT_IMAGES and path.name not in NOT_IMAGE_NAMES


def open_files(source: Any) -> Files:  # noqa: ANN401
    """Name -> reader of every file in a folder, a zip, one file, or a list of these, by name in their order.

    The readers raise ImageError for a file that cannot be read. Raises ImageError for a zip that may do harm: too many
    files, too much to unpack, names that lead out of it, links, a password.
    """
    if isinstance(source, Sequence) and not isinstance(source, (str, bytes, bytearray)):
        return joined([open_files(part) for part in source])
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            return {file.relative_to(path).as_posix(): partial(read_path, file) for file in inside}
        try:
            with path.open("rb") as stream:
                packed = stream.read(len(ZIP_MARK)) == ZIP_MARK
        except FileNotFoundError:
            raise ImageError(f"There is no file {path.name!r} any more. Choose or upload it again.") from None
        except OSError:
            packed = False  # reading it says what is wrong
        return zipped_files(path) if packed else {path.name: partial(read_bytes, path)}
    data = read_bytes(source)
    return zipped_files(io.BytesIO(data)) if data[:4] == ZIP_MARK else {"": lambda: data}


def joined(parts: Sequence[Files]) -> Files:
    """Several sets of files as one; of equal names the later ones get a number."""
    files: Files = {}
    for part in parts:
        for name, reader in part.items():
            path, unique, number = PurePosixPath(name), name, 1
            while unique in files:
                number += 1
                unique = str(path.with_name(f"{path.stem} ({number}){path.suffix}")) if path.name else f"({number})"
            if unique == name or is_image_name(name):  # a second table or license is no picture by its new name
                files[unique] = reader
    if len(files) > MAX_FILES:
        raise ImageError(f"{len(files)} files were given; at most {MAX_FILES} are read at once.")
    return files


def zipped_files(place: Path | io.BytesIO) -> Files:
    """The files of a zip, in the order of their names. Raises ImageError."""
    try:
        archive = zipfile.ZipFile(place)
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        size = place.stat().st_size if isinstance(place, Path) else place.getbuffer().nbytes
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, LookupError) as error:
        raise ImageError("The zip is damaged or cut off and cannot be opened. Make it again.") from error
    check_entries(entries, size)
    return {entry.filename: partial(read_entry, archive, entry) for entry in sorted(entries, key=lambda e: e.filename)}


def check_entries(entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Raises ImageError for a zip of `size` bytes that may do harm."""
    if len(entries) > MAX_FILES:
        raise ImageError(f"The zip holds {len(entries)} files; at most {MAX_FILES} are read. Make several of it.")
    for entry in entries:
        # Nothing is written under these names, but what names a place outside was not made for reading.
        parts = entry.filename.replace("\\", "/").split("/")
        if ".." in parts or not parts[0] or ":" in parts[0]:
            raise ImageError("The zip holds a file whose name leads out of it. Make it again from plain files.")
        if stat.S_ISLNK(entry.external_attr >> FILE_MODE):
            raise ImageError("The zip holds links; give one with the files themselves.")
        if entry.flag_bits & ENCRYPTED:
            raise ImageError("The zip is locked by a password. Make it without one.")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_UNPACKED or (total > MAX_BYTES and total > MAX_RATIO * size):
        raise ImageError(
            f"The zip unpacks to {total / 2**20:,.0f} MB from {size / 2**20:,.1f} MB; at most {MAX_UNPACKED >> 20} MB "
            f"and {MAX_RATIO} times its own size are read. Make several of it."
        )


def read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of one file of a zip, at most as many as it says that it holds. Raises ImageError."""
    if entry.file_size > MAX_BYTES:
        raise ImageError(f"The file has {entry.file_size / 2**20:.0f} MB; at most {MAX_BYTES >> 20} MB are read.")
    try:
        with archive.open(entry) as stream:
            return stream.read(entry.file_size)
    except (zipfile.BadZipFile, *DAMAGED) as error:
        raise ImageError("This file of the zip is damaged and cannot be unpacked. Make the zip again.") from error
