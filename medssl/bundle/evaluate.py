"""Measure a bundle on labeled images that it may partly know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import Dataset

from medssl.audit.fingerprint import fingerprint_all
from medssl.backbones.embedder import Embedder
from medssl.bundle.bundle import Bundle
from medssl.bundle.measure import image_probabilities, measure, part_of
from medssl.data.groups import group_key
from medssl.data.load import load_data
from medssl.errors import DataError

ALL = "all"
KNOWN_SPLITS = ("train", "val")  # what fitted the head, its temperature and its thresholds


def rows_in_split(dataset: Dataset, split: str, source: str) -> Dataset:
    """The rows of one split, or all. Raises DataError where there is none."""
    if split == ALL:
        return dataset
    rows = np.flatnonzero(np.asarray(dataset["split"][:]) == split)
    if not len(rows):
        present = sorted(set(dataset["split"]) - {""}) or ["none"]
        raise DataError(f"{source} has no split {split!r}; it has: {', '.join(present)}. Take all rows by --split all.")
    return dataset.select(rows)


def without_known(dataset: Dataset, bundle: Bundle, progress: bool = True) -> tuple[Dataset, int, list[str]]:
    """The readable rows that are none of the images the bundle was fitted or calibrated on, compared by pixels.

    Also how many were left out because they are, and the names of files that cannot be read. Raises DataError where
    nothing is left.
    """
    splits = bundle.cases["split"][:]
    known = {case for case, split in zip(bundle.cases["id"][:], splits, strict=True) if split in KNOWN_SPLITS}
    decoded = fingerprint_all(dataset, progress)
    names = dataset["file_name"][:]
    unreadable = [name for name, item in zip(names, decoded, strict=True) if isinstance(item, str)]
    readable = [row for row, item in enumerate(decoded) if not isinstance(item, str)]
    rows = [row for row in readable if decoded[row].id not in known]
    left_out = len(readable) - len(rows)
    if not rows:
        raise DataError(
            f"Of {len(dataset)} images {left_out} are the bundle's own training or validation images and "
            f"{len(unreadable)} cannot be read, so there is nothing to measure on. Give images that it does not know."
        )
    return dataset.select(rows), left_out, unreadable


def of_known_groups(dataset: Dataset, bundle: Bundle) -> int:
    """How many images have a group, named in the data and not by their file, of the same name as one the bundle knows.

    They are other pictures of its training and validation patients, or of patients who are called alike elsewhere.
    """
    cases = zip(bundle.cases["group_id"][:], bundle.cases["split"][:], strict=True)
    known = {group_key(group) for group, split in cases if split in KNOWN_SPLITS}
    pairs = zip(dataset["group_id"][:], dataset["file_name"][:], strict=True)
    return sum(group != name and group_key(group) in known for group, name in pairs)


def evaluate_bundle(
    bundle: Bundle,
    data: str | Path,
    split: str = "test",
    others: dict[str, str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> dict:
    """All figures of a bundle on the images of a folder or Hub data set; see `measure`.

    Images that the bundle was fitted or calibrated on are not counted: `known_images` says how many there were, and
    `unreadable` names files that cannot be read. `known_groups` says how many of those that are counted have a group
    called as one that it was fitted on, see `of_known_groups`. Raises DataError, ImageError.
    """
    embedder = Embedder(bundle.backbone, bundle.head.preprocess, bundle.head.pooling)
    dataset = rows_in_split(load_data(data, labels=bundle.labels), split, str(data))
    dataset, known, unreadable = without_known(dataset, bundle, progress)
    alike = of_known_groups(dataset, bundle)
    dataset = embedder.embed(dataset, cache_dir, progress)
    probabilities = image_probabilities(dataset, bundle.head, bundle.backbone, progress)
    parts = {
        name: part_of(embedder.embed(load_data(folder), cache_dir, progress)) for name, folder in (others or {}).items()
    }
    figures = measure(bundle, part_of(dataset), parts, resamples, seed, probabilities)
    facts = {"bundle": bundle.name, "data": Path(data).name, "split": split}
    return {**facts, "known_images": known, "known_groups": alike, "unreadable": unreadable, **figures}
