"""The labelled images of fine-tuning: train and validation, decoded once to the backbone's frame."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from medssl.backbones.embeddings import record_key
from medssl.backbones.frames import FrameFile, SelectedFrames
from medssl.data.labelled import Labelled
from medssl.data.load import read_record
from medssl.data.rows import SPLITS
from medssl.data.split import split_data
from medssl.errors import DataError, ImageError, PretrainError
from medssl.files import written_whole
from medssl.images.preprocess import Preprocess
from medssl.images.read import image_id
from medssl.runtime import processors

KEY_LENGTH = 16  # hexadecimal digits of a file's hash: 64 bits tell a million files apart
SIDES = ("train", "val")


def over_images(
    dataset: Dataset, rows: Iterable[int], take: Callable[[int, Image.Image], object], progress: bool, title: str
) -> list[object | None]:
    """`take(row, image)` of the images of some rows, decoded by threads; None for a file that cannot be read."""

    def of(row: int) -> object | None:
        try:
            return take(row, read_record(dataset[row]))
        except ImageError:
            return None

    rows = list(rows)
    with ThreadPoolExecutor(processors()) as pool:
        return list(tqdm(pool.map(of, rows), total=len(rows), desc=title, unit="img", disable=not progress))


def split_as_built(dataset: Dataset, seed: int, progress: bool = True) -> Dataset:
    """The data set split as `build_bundle` splits it with the same seed. Raises DataError.

    Pixels are only compared where a split has to be made: pictures that are equal stay on one side.
    """
    if set(dataset["split"][:]) >= set(SPLITS):
        return split_data(dataset, seed=seed)
    ids = over_images(dataset, range(len(dataset)), lambda _, image: image_id(image), progress, "compare")
    return split_data(dataset, seed=seed, same=[found or "" for found in ids])


def file_keys(dataset: Dataset) -> list[str]:
    """A short hash of each row's file: what it holds, wherever it lies."""
    return [record_key(record)[:KEY_LENGTH] for record in dataset.select_columns(["image"])]


@dataclass(frozen=True)
class TuningImages:
    """Readable images of train and validation, test never among them.

    `pixels [N, h, w, 3]` uint8 are memory-mapped; `labels [N]` int, `groups [N]` text, `keys [N]` hashes of files;
    `train [T]` and `validation [V]` are rows. `skipped` names files that could not be read. `fingerprint` changes when
    any file, label or side does.
    """

    frames: FrameFile
    pixels: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    keys: list[str]
    train: np.ndarray
    validation: np.ndarray
    skipped: list[str]
    fingerprint: str

    def rows(self, side: str) -> np.ndarray:
        """The rows of "train" or "val"."""
        return self.train if side == "train" else self.validation

    def side(self, side: str) -> SelectedFrames:
        """The frames of "train" or "val"."""
        return SelectedFrames(self.frames, self.rows(side))

    def labelled(self, side: str, embeddings: np.ndarray) -> Labelled:
        """Embeddings `[M, D]` of "train" or "val" with their labels and groups."""
        rows = self.rows(side)
        return Labelled(embeddings, self.labels[rows], self.groups[rows])

    def batch(self, rows: np.ndarray) -> torch.Tensor:
        """Some images, uint8 `[B, 3, h, w]`."""
        return torch.from_numpy(self.pixels[rows]).permute(0, 3, 1, 2)


def write_frames(dataset: Dataset, frames: FrameFile, preprocess: Preprocess, progress: bool) -> list[int]:
    """Decode all images of a data set into `frames`; returns the rows of files that cannot be read."""

    def write(row: int, image: Image.Image) -> bool:
        frames.write(row, preprocess.resize(image))
        return True

    done = over_images(dataset, range(len(dataset)), write, progress, "read")
    # Where the last files cannot be read, nothing was written at their places.
    os.truncate(frames.path, len(dataset) * frames.bytes_each)
    return [row for row, written in enumerate(done) if not written]


def readable_again(dataset: Dataset, rows: Sequence[int]) -> bool:
    """Whether any of the rows that could not be read can be now, by another version or package."""
    for row in rows:
        try:
            read_record(dataset[int(row)])
        except ImageError:
            continue
        return True
    return False


def open_images(dataset: Dataset, preprocess: Preprocess, folder: Path, progress: bool = True) -> TuningImages:
    """The train and val rows of a split data set, decoded into `folder`, or found there again.

    Rows of any other split are left alone. Raises DataError, PretrainError.
    """
    height, width = preprocess.size
    if height != width:
        raise PretrainError(f"Fine-tuning needs a square input; the size given is {height}x{width} pixels.")
    splits = np.asarray(dataset["split"][:], dtype=object)
    kept = dataset.select(np.flatnonzero(np.isin(splits, SIDES)))
    keys, columns = file_keys(kept), {name: list(kept[name][:]) for name in ("split", "label", "group_id")}
    identity = json.dumps([preprocess.to_dict(), keys, columns], sort_keys=True)
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:KEY_LENGTH]
    folder.mkdir(parents=True, exist_ok=True)
    facts_file = folder / "frames.json"
    facts = json.loads(facts_file.read_text("utf-8")) if facts_file.exists() else {}
    stale = facts.get("fingerprint") != fingerprint or readable_again(kept, facts["broken"])
    if stale:
        facts_file.unlink(missing_ok=True)  # first: from now on the frames are not those that it speaks of
    frames = FrameFile(folder / "frames", len(kept), preprocess)
    if stale:
        facts = {"fingerprint": fingerprint, "broken": write_frames(kept, frames, preprocess, progress)}
        with written_whole(facts_file) as beside:
            beside.write_text(json.dumps(facts), "utf-8")
    if facts["broken"]:  # a run on fewer images is another run
        fingerprint = hashlib.sha256(f"{fingerprint} without {facts['broken']}".encode()).hexdigest()[:KEY_LENGTH]
    readable = np.ones(len(kept), bool)
    readable[facts["broken"]] = False
    if not readable.any():
        raise DataError(f"None of the {len(kept)} files of train and validation can be read as an image.")
    sides = np.asarray(columns["split"], dtype=object)
    names = kept["file_name"][:]
    return TuningImages(
        frames,
        np.memmap(frames.path, np.uint8, "r", shape=(len(kept), *frames.shape)),
        np.asarray(columns["label"]),
        np.asarray(columns["group_id"], dtype=str),
        keys,
        np.flatnonzero((sides == "train") & readable),
        np.flatnonzero((sides == "val") & readable),
        [names[row] for row in facts["broken"]],
        fingerprint,
    )
