"""Many pictures as one sequence: of a multi-frame file, a volume, a series, a zip, a folder; decoded one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from medssl.errors import ImageError
from medssl.images.dicom import is_dicom
from medssl.images.files import Files, is_image_name, open_files
from medssl.images.limits import MAX_FRAMES
from medssl.images.picture import Picture, PictureFile
from medssl.images.series import Series, Slice, find_series, read_slice

Progress = Callable[[float, str], None]
NAMED = 3  # files that a note names


@dataclass(frozen=True)
class PictureEntry:
    """Where one of many pictures lies: its file, its number there (from 0) of how many, its series ("" for none)."""

    file: str
    frame: int = 0
    frames: int = 1
    series: str = ""

    @property
    def title(self) -> str:
        """File and number in words."""
        return f"{self.file} [{self.frame}]" if self.frames > 1 else self.file

    @property
    def together(self) -> str:
        """What it belongs to: its series, else its file where that holds several pictures, else nothing."""
        return self.series or (self.file if self.frames > 1 else "")


@dataclass(frozen=True)
class Opener:
    """How the files of many pictures are opened: `plane` for volumes."""

    files: Files
    plane: str | None = None

    def open(self, name: str) -> PictureFile:
        """The pictures of one file. Raises ImageError."""
        return PictureFile(self.files[name](), self.plane)


class Pictures(Sequence[Picture]):
    """Pictures that are decoded when they are asked for, one at a time; `entries` say where each lies.

    A file that cannot be read has an entry, and raises ImageError when it is asked for. `notes` are plain sentences:
    series told apart, missing slices, files left out.
    """

    def __init__(self, opener: Opener, entries: Sequence[PictureEntry], notes: Sequence[str]) -> None:
        self._opener = opener
        self.entries, self.notes = tuple(entries), tuple(notes)
        self._open: tuple[str, PictureFile] | None = None  # the last file, as its next picture is often asked for

    def __len__(self) -> int:
        return len(self.entries)

    def close(self) -> None:
        """Let go of the file that is open; asking for a picture opens it again."""
        self._open = None

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> Pictures: ...
    def __getitem__(self, index: int | slice) -> Picture | Pictures:
        if isinstance(index, slice):
            return Pictures(self._opener, self.entries[index], self.notes)
        entry = self.entries[index]
        if self._open is None or self._open[0] != entry.file:
            self._open = None  # two at once would be twice the memory
            self._open = (entry.file, self._opener.open(entry.file))
        return self._open[1].picture(entry.frame, entry.file)

    def __iter__(self) -> Iterator[Picture]:
        return (self[index] for index in range(len(self)))


def read_images(
    source: Any,  # noqa: ANN401
    plane: str | None = None,
    progress: Progress | None = None,
) -> Pictures:
    """All pictures in a file, a zip, a folder, or a list of these, as a sequence that decodes one at a time.

    Frames of DICOM files, pages of TIFFs, pictures of animations and slices of NIfTI volumes (lying as `plane` says,
    see `Volume`) come in their order; DICOM files of one series are ordered by where their slices lie. Each file is
    looked at once here. Raises ImageError where there is nothing to read, and for a zip that may do harm.
    """
    files = open_files(source)
    opener = Opener(files, plane)
    chosen = [name for name in files if len(files) == 1 or is_image_name(name)]
    frames: dict[str, int] = {}
    slices: dict[str, Slice] = {}
    without = [name for name in files if name not in set(chosen)]
    for number, name in enumerate(chosen):
        if progress:
            progress(number / len(chosen), f"Looking at file {number + 1} of {len(chosen)}")
        count, one = look(files[name], opener)
        if one is not None and not one.pictures and len(chosen) > 1:
            without.append(name)
            continue
        frames[name] = count
        if one is not None:
            slices[name] = one
    if not frames:
        raise ImageError("There is no image in what was given. Give image files, a folder or a zip of them.")
    if sum(frames.values()) > MAX_FRAMES:
        raise ImageError(f"There are {sum(frames.values())} pictures in what was given; at most {MAX_FRAMES} are read.")
    found = find_series(slices)
    return Pictures(opener, entries_of(frames, found), [*series_notes(found), *left_out(without)])


def open_pictures(source: Any, progress: Progress | None = None) -> Sequence[Picture]:  # noqa: ANN401
    """The pictures in anything that `read_images` takes, or in a sequence of what `Picture.read` takes.

    What comes back has `entries` and `notes`. Raises ImageError.
    """
    if hasattr(source, "entries"):
        return source
    paths = isinstance(source, Sequence) and all(isinstance(part, (str, os.PathLike)) for part in source)
    if paths or not isinstance(source, Iterable) or isinstance(source, (str, bytes, bytearray)) or is_file(source):
        return read_images(source, progress=progress)
    return GivenPictures(list(source))


def is_file(source: Any) -> bool:  # noqa: ANN401
    """Whether this is an open file."""
    return hasattr(source, "read")


class GivenPictures(Sequence[Picture]):
    """Images handed over one by one as pictures: PIL images, bytes, open files, Pictures. Named by their number."""

    notes = ()

    def __init__(self, sources: Sequence[Any]) -> None:
        if not sources:
            raise ImageError("There is no image in what was given. Give image files, a folder or a zip of them.")
        self._sources = sources
        self.entries = tuple(self._entry(number, source) for number, source in enumerate(sources))

    def _entry(self, number: int, source: Any) -> PictureEntry:  # noqa: ANN401
        name = getattr(source, "name", "") or (os.fspath(source) if isinstance(source, (str, os.PathLike)) else "")
        return PictureEntry(str(name) or f"image {number}", getattr(source, "frame", 0), getattr(source, "frames", 1))

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401
        """One picture, or those of a slice. Raises ImageError."""
        return GivenPictures(self._sources[index]) if isinstance(index, slice) else Picture.read(self._sources[index])


def look(read: Callable[[], bytes], opener: Opener) -> tuple[int, Slice | None]:
    """How many pictures a file holds (1 for one that cannot be read), and where its slice lies where it is DICOM."""
    try:
        data = read()
        one = read_slice(data) if is_dicom(data) else None
        if one is not None:
            return max(1, one.pictures), one
        return PictureFile(data, opener.plane).frames, None
    except ImageError:  # which asking for its picture says
        return 1, None


def entries_of(frames: dict[str, int], found: Sequence[Series]) -> list[PictureEntry]:
    """The entries of files with so many pictures each, in order; a series stands where its first file would."""
    member = {name: (number, series) for number, series in enumerate(found, 1) for name in series.files}
    entries, done = [], set()
    for name, count in frames.items():
        if name not in member:
            entries += [PictureEntry(name, frame, count) for frame in range(count)]
            continue
        number, series = member[name]
        if number not in done:
            done.add(number)
            entries += [PictureEntry(file, series=f"series {number}") for file in series.files]
    return entries


def series_notes(found: Sequence[Series]) -> list[str]:
    """How many series there are, and what is to be known of each."""
    notes = []
    if len(found) > 1:
        sizes = ", ".join(f"series {number}: {len(series.files)}" for number, series in enumerate(found, 1))
        notes.append(f"{len(found)} series were told apart, with so many slices each: {sizes}.")
    notes += [f"Series {number}: {note}." for number, series in enumerate(found, 1) for note in series.notes]
    return notes


def left_out(names: Sequence[str]) -> list[str]:
    """A sentence on files without pictures."""
    if not names:
        return []
    more = ", ..." if len(names) > NAMED else ""
    return [f"Left out, as they hold no picture: {len(names)} files ({', '.join(names[:NAMED])}{more})."]
