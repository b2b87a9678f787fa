"""Phantoms: synthetic medical pictures of the four tasks, drawn by code from a seed, with their lesion masks."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from tqdm.auto import tqdm

from medssl.data.rows import BOX_COLUMNS, MASK_FILE
from medssl.demo import brain, eye, leukaemia, lung
from medssl.demo.drawing import to_uint8
from medssl.errors import DataError

PER_GROUP = 2
# Groups go round these, so that 60, 20 and 20 % of each class are in train, val and test.
SPLIT_ROUND = ("train", "train", "val", "train", "test")
SOURCE = "synthetic"
MASKS = "masks"  # a folder that loaders leave aside by its name
Drawer = Callable[[str, np.random.Generator, np.random.Generator], tuple[np.ndarray, np.ndarray]]
# What draws the pictures of each demo task: (label, patient's randomness, picture's randomness) -> (image, mask).
DRAWERS: dict[str, tuple[tuple[str, ...], Drawer]] = {
    "lung-demo": (lung.LABELS, lung.draw),
    "brain-demo": (brain.LABELS, brain.draw),
    "leukaemia-demo": (leukaemia.LABELS, leukaemia.draw),
    "eye-demo": (eye.LABELS, eye.draw),
}


@dataclass(frozen=True)
class Phantom:
    """One synthetic picture: uint8 `image [H, W, 3]` and bool `mask [H, W]` of the lesion that decides its label.

    The mask is empty where the label means that there is no lesion.
    """

    image: np.ndarray
    mask: np.ndarray
    label: str
    group_id: str
    split: str
    name: str

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom around the mask as fractions of width and height; None for an empty one."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        if not len(rows):
            return None
        height, width = self.mask.shape
        return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def generator(*facts: str | int) -> np.random.Generator:
    """Randomness that depends on nothing but these facts."""
    digest = hashlib.sha256(json.dumps(facts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def check_task(task: str) -> tuple[str, ...]:
    """The labels of a demo task. Raises DataError for an unknown one."""
    if task not in DRAWERS:
        raise DataError(f"There are no phantoms of {task!r}. Allowed: {', '.join(DRAWERS)}.")
    return DRAWERS[task][0]


def draw_phantom(task: str, label: str, index: int, seed: int = 0) -> Phantom:
    """The phantom of that number: pictures 2 k and 2 k + 1 of a label are of one patient. Raises DataError."""
    labels = check_task(task)
    if label not in labels:
        raise DataError(f"{task} has no label {label!r}. Allowed: {', '.join(labels)}.")
    group = index // PER_GROUP
    patient = generator(seed, task, label, group)
    image, mask = DRAWERS[task][1](label, patient, generator(seed, task, label, group, index))
    return Phantom(
        to_uint8(image),
        mask.astype(bool),
        label,
        f"{label}-{group:04d}",
        SPLIT_ROUND[group % len(SPLIT_ROUND)],
        f"{label}/{index:05d}",
    )


def draw_phantoms(task: str, per_label: int, seed: int = 0, progress: bool = False) -> Iterator[Phantom]:
    """`per_label` phantoms of each label, label by label, drawn on all cores. Raises DataError."""
    labels = check_task(task)
    if per_label < 1:
        raise DataError(f"per_label is {per_label}; draw at least 1.")
    wanted = [(label, index) for label in labels for index in range(per_label)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        drawn = pool.map(partial(draw_named, task, seed), wanted, chunksize=16)
        yield from tqdm(drawn, total=len(wanted), desc=task, unit="img", disable=not progress)


def draw_named(task: str, seed: int, wanted: tuple[str, int]) -> Phantom:
    """`draw_phantom` of a (label, index) pair."""
    return draw_phantom(task, *wanted, seed=seed)


def png(pixels: np.ndarray) -> bytes:
    """uint8 or bool pixels as PNG bytes."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def phantom_dataset(task: str, per_label: int, seed: int = 0, progress: bool = False) -> Dataset:
    """Phantoms as a data set: image, mask, label, split, group_id, source and the mask's box."""
    labels = check_task(task)
    rows = [
        {
            "image": {"bytes": png(phantom.image), "path": None},
            "mask": {"bytes": png(phantom.mask), "path": None},
            "file_name": f"{phantom.name}.png",
            "label": phantom.label,
            "split": phantom.split,
            "group_id": phantom.group_id,
            "source": SOURCE,
            **dict(zip(BOX_COLUMNS, phantom.box or (None,) * 4, strict=True)),
        }
        for phantom in draw_phantoms(task, per_label, seed, progress)
    ]
    texts = dict.fromkeys(("file_name", "split", "group_id", "source"), Value("string"))
    boxes = dict.fromkeys(BOX_COLUMNS, Value("float32"))
    pictures = {"image": ImageFeature(), "mask": ImageFeature()}
    return Dataset.from_list(rows, Features({**pictures, **texts, "label": ClassLabel(names=list(labels)), **boxes}))


def write_phantoms(folder: str | Path, task: str, per_label: int, seed: int = 0, progress: bool = False) -> Path:
    """Phantoms as an imagefolder: LABEL/NUMBER.png, masks/LABEL/NUMBER.png, and a metadata.csv that names both.

    `folder` must be new or empty; it appears whole. Raises DataError.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} exists and is not empty; give another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        images, lines = beside / "images", []
        masks = masks_of(images)
        for phantom in draw_phantoms(task, per_label, seed, progress):
            name = f"{phantom.name}.png"
            for top, pixels in ((images, phantom.image), (masks, phantom.mask)):
                (top / name).parent.mkdir(parents=True, exist_ok=True)
                (top / name).write_bytes(png(pixels))
            box = ["" if phantom.box is None else f"{value:.6f}" for value in phantom.box or range(4)]
            lines.append([name, phantom.label, phantom.split, phantom.group_id, SOURCE, f"{MASKS}/{name}", *box])
        with (images / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file_name", "label", "split", "group_id", "source", MASK_FILE, *BOX_COLUMNS])
            writer.writerows(lines)
        images.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def masks_of(folder: str | Path) -> Path:
    """Where the masks of an imagefolder of phantoms lie."""
    return Path(folder) / MASKS
