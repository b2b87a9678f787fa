"""One pass over a data set's files: each is decoded once, and what a build needs of it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from datasets.arrow_writer import ArrowWriter
from tqdm.auto import tqdm

from medssl.audit.fingerprint import Fingerprint, fingerprint
from medssl.backbones.frames import FrameFile, Frames, PartlyBlackFrames, SelectedFrames
from medssl.data.load import read_record
from medssl.errors import ImageError
from medssl.images import thumbnails
from medssl.images.preprocess import Preprocess
from medssl.runtime import processors

CASE_FEATURES = Features({"id": Value("string"), "image": ImageFeature()})
CHUNK = 256  # how many decoded results wait in memory at most


@dataclass(frozen=True)
class Scan:
    """What one decode of every file leaves behind; the pixels themselves are gone.

    `fingerprints` are the audit's, one a row, or the reason where a file cannot be read. `frames` are the readable
    pictures in the model's frame, and `pictures` their ids and thumbnails: both on disk, both in the rows' order.
    """

    fingerprints: list[Fingerprint | str]
    frames: SelectedFrames
    pictures: Dataset

    @property
    def all_frames(self) -> Frames:
        """The frame of each row, black where its file cannot be read."""
        black = [row for row, item in enumerate(self.fingerprints) if isinstance(item, str)]
        return PartlyBlackFrames(self.frames.frames, black) if black else self.frames.frames

    @property
    def ids(self) -> list[str]:
        """The id of each row's picture, "" where it cannot be read."""
        return ["" if isinstance(item, str) else item.id for item in self.fingerprints]

    @property
    def readable(self) -> np.ndarray:
        """The rows whose file can be read."""
        return np.array([row for row, item in enumerate(self.fingerprints) if not isinstance(item, str)], int)


def scan_pictures(
    dataset: Dataset, preprocess: Preprocess, folder: Path, side: int = thumbnails.SIDE, progress: bool = True
) -> Scan:
    """Decode every file of a data set once, with threads.

    Keeps frames and thumbnails (longer side of `side` pixels) in `folder`, which may be deleted when the frames are no
    longer needed. Raises DataError when its disk is full.
    """
    frames = FrameFile(folder / "frames", len(dataset), preprocess)
    pictures = folder / "pictures.arrow"

    def read(row: int) -> tuple[Fingerprint, bytes] | str:
        try:
            image = read_record(dataset[row])
        except ImageError as error:
            return str(error)
        frames.write(row, preprocess.resize(image))
        return fingerprint(image), thumbnails.thumbnail(image, side)

    def results() -> Iterator[tuple[Fingerprint, bytes] | str]:
        with ThreadPoolExecutor(processors()) as pool:
            for start in range(0, len(dataset), CHUNK):
                yield from pool.map(read, range(start, min(start + CHUNK, len(dataset))))

    fingerprints: list[Fingerprint | str] = []
    with ArrowWriter(features=CASE_FEATURES, path=str(pictures)) as writer:
        for result in tqdm(results(), total=len(dataset), desc="read", unit="img", disable=not progress):
            if isinstance(result, str):
                fingerprints.append(result)
                continue
            own, picture = result
            fingerprints.append(own)
            writer.write({"id": own.id, "image": {"bytes": picture, "path": None}})
        writer.finalize()
    rows = np.array([row for row, item in enumerate(fingerprints) if not isinstance(item, str)], int)
    return Scan(fingerprints, SelectedFrames(frames, rows), Dataset.from_file(str(pictures)))
