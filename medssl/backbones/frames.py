"""Where a backbone's input comes from: images decoded when asked for, or resized ones kept on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from datasets import Dataset

from medssl.data.load import read_record
from medssl.errors import DataError
from medssl.images.preprocess import Preprocess
from medssl.runtime import processors

CHUNK_BATCHES = 8
SPARE_BYTES = 256 * 2**20
Item = TypeVar("Item")


class Frames(Protocol):
    """Images in the model's frame, before normalization: `len`, and `frame(index)` as uint8 `[h, w, 3]`."""

    def __len__(self) -> int: ...  # noqa: D105
    def frame(self, index: int) -> np.ndarray: ...  # noqa: D102


class DecodedFrames:
    """The frames of a data set's images, decoded whenever they are asked for. Raises ImageError for a broken file."""

    def __init__(self, dataset: Dataset, preprocess: Preprocess) -> None:
        self.dataset, self.preprocess = dataset, preprocess

    def __len__(self) -> int:
        return len(self.dataset)

    def frame(self, index: int) -> np.ndarray:
        """The image of that row, resized: uint8 `[h, w, 3]`."""
        return self.preprocess.resize(read_record(self.dataset[index]))


class FrameFile:
    """Frames `[N, h, w, 3]` uint8 on disk, so that one decode serves embedding, patch tokens and classification.

    Written and read by position, not mapped, so that memory does not grow with N; one that was not written is black.
    Raises DataError when the disk has no room for them.
    """

    def __init__(self, path: Path, count: int, preprocess: Preprocess) -> None:
        self.shape = (*preprocess.size, 3)
        self.path, self.count = path, count
        self.bytes_each = int(np.prod(self.shape))
        free, needed = shutil.disk_usage(path.parent).free, count * self.bytes_each
        if needed + SPARE_BYTES > free:
            raise DataError(
                f"The resized copies of {count} images need {needed / 1e9:.2f} GB in {path.parent}, where "
                f"{free / 1e9:.2f} GB are free. Free some, choose another place (MEDSSL_CACHE or --cache), or a "
                "smaller input size."
            )
        with path.open("ab") as stream:  # what an earlier run wrote stays
            stream.truncate(needed)

    def __len__(self) -> int:
        return self.count

    def write(self, index: int, frame: np.ndarray) -> None:
        """Keep one frame, uint8 `[h, w, 3]`."""
        with self.path.open("r+b") as stream:
            stream.seek(index * self.bytes_each)
            stream.write(np.ascontiguousarray(frame, np.uint8).tobytes())

    def frame(self, index: int) -> np.ndarray:
        """One kept frame, uint8 `[h, w, 3]`."""
        with self.path.open("rb") as stream:
            stream.seek(index * self.bytes_each)
            return np.frombuffer(stream.read(self.bytes_each), np.uint8).reshape(self.shape)


class PartlyBlackFrames:
    """Frames of which those of some `rows` are black, as their files cannot be read."""

    def __init__(self, frames: Frames, rows: Sequence[int]) -> None:
        self.frames, self.rows = frames, tuple(rows)

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, index: int) -> np.ndarray:
        """The frame of that row."""
        return self.frames.frame(index)


class HeldFrames:
    """Frames in memory, uint8 `[N, h, w, 3]`."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, index: int) -> np.ndarray:
        """The frame of that row."""
        return self.frames[index]


class SelectedFrames:
    """Some rows of other frames, in a given order."""

    def __init__(self, frames: Frames, rows: np.ndarray) -> None:
        self.frames, self.rows = frames, rows

    def __len__(self) -> int:
        return len(self.rows)

    def frame(self, index: int) -> np.ndarray:
        """The frame of the row at that place."""
        return self.frames.frame(int(self.rows[index]))


def pixel_batches(frames: Frames, preprocess: Preprocess, batch_size: int, overlap: bool) -> Iterator[np.ndarray]:
    """Frames as normalized pixels, float32 `[b, 3, h, w]`, read by threads a chunk of batches at a time.

    With `overlap` the next chunk is read while the caller works. On a CPU that costs more than it brings: every matrix
    product waits for the core that decodes.
    """

    def read(index: int) -> np.ndarray:
        return preprocess.normalize(frames.frame(index))

    size = batch_size * CHUNK_BATCHES
    chunks = [range(start, min(start + size, len(frames))) for start in range(0, len(frames), size)]
    with closing(read_ahead(read, chunks, overlap, min(8, processors()))) as ready:
        for pixels in ready:
            for start in range(0, len(pixels), batch_size):
                yield np.stack(pixels[start : start + batch_size])


def read_ahead(
    read: Callable[[int], Item], chunks: Sequence[range], overlap: bool, threads: int
) -> Generator[list[Item], None, None]:
    """What `read` gives for the indices of each chunk, by threads; with `overlap` those of the next chunk while the
    caller works. What nobody waits for any more is not read.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[Item]] = []
        try:
            for number, chunk in enumerate(chunks):
                waiting = waiting or [pool.submit(read, index) for index in chunk]
                ready = [future.result() for future in waiting]
                following = chunks[number + 1] if overlap and number + 1 < len(chunks) else ()
                waiting = [pool.submit(read, index) for index in following]
                yield ready
        finally:
            for future in waiting:
                future.cancel()
