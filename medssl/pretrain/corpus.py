"""The unlabelled images of a pretraining run: decoded once to one side length, kept in a file that is read by page."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from medssl.backbones.embeddings import record_key
from medssl.data.folders import NO_IMAGES
from medssl.data.load import load_data, read_record
from medssl.data.rows import SPLIT_NAMES
from medssl.errors import DataError, ImageError
from medssl.files import written_whole
from medssl.pretrain.views import POLICIES, policy_table
from medssl.runtime import processors

CHUNK = 256
DEMO = "-demo"  # ends the name of a data set of phantoms


@dataclass(frozen=True)
class Corpus:
    """uint8 `images [N, 3, S, S]` (a memory map), the policy of each int64 `policy_index [N]`, and where they are from.

    `counts` gives the number of images by data set, `skipped` the files that could not be read;
    `fingerprint` changes when any file does.
    """

    images: np.ndarray
    policy_index: np.ndarray
    policies: list[str]
    counts: dict[str, int]
    skipped: list[str]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.images)

    def tasks(self) -> np.ndarray:
        """The number of each image's task int64 `[N]`: data sets of one name, with or without "-demo", are one."""
        names = [name.removesuffix(DEMO) for name in self.counts]
        return np.repeat([names.index(name) for name in names], list(self.counts.values()))

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 images `[B, 3, S, S]` and their policies float32 `[B, fields]`."""
        table = policy_table(self.policies)
        return torch.from_numpy(self.images[indices]), table[torch.from_numpy(self.policy_index[indices])]


def square(image: Image.Image, side: int) -> np.ndarray:
    """An RGB image squashed to uint8 `[3, side, side]`: the whole of it, as heads will see it."""
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def open_corpus(
    data: Mapping[str, str | Path],
    folder: Path,
    side: int,
    views: str | None = None,
    progress: bool = True,
) -> Corpus:
    """Decode the train splits (all images where there are no splits) of data sets by name into `folder`, or reopen.

    Each data set takes the policy of its name, without "-demo", else "default"; `views` names one for all. Labels are
    never read. Files that cannot be read are skipped and named. Raises DataError when nothing is left.
    """
    parts = {name: records_of(source) for name, source in data.items()}
    policies = [views or policy_name(name) for name in parts]
    unknown = [name for name in policies if name not in POLICIES]
    if unknown:
        raise DataError(f"There are no views named {unknown[0]!r}. Allowed: {', '.join(POLICIES)}.")
    digest = hashlib.sha256(json.dumps([side, list(parts)]).encode())
    for part in parts.values():
        for record in part:
            digest.update(record_key(record).encode())
    key = digest.hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    facts_file, images_file = folder / "corpus.json", folder / "corpus.npy"
    facts = json.loads(facts_file.read_text("utf-8")) if facts_file.exists() else {}
    if facts.get("key") != key:
        facts = {"key": key, **decode(parts, images_file, side, progress)}
        with written_whole(facts_file) as beside:
            beside.write_text(json.dumps(facts, indent=1), "utf-8")
    images = np.load(images_file, mmap_mode="r", allow_pickle=False)
    index = np.repeat(np.arange(len(parts)), list(facts["counts"].values()))
    return Corpus(images, index, policies, facts["counts"], facts["skipped"], key[:16])


def records_of(source: str | Path) -> list[dict]:
    """The rows {image, file_name} of a folder or Hub data set that pretraining may see: train where there are splits.

    A folder without metadata.csv may be plain files at any depth. Raises DataError when there is nothing.
    """
    folder = Path(source)
    if not folder.is_dir() or (folder / "metadata.csv").is_file():
        rows = load_data(source).select_columns(["image", "file_name", "split"])
        found = [row for row in rows if row["split"] in ("", "train")]
    else:
        trains = [path for path in folder.iterdir() if path.is_dir() and SPLIT_NAMES.get(path.name.lower()) == "train"]
        files = sorted(file for top in trains or [folder] for file in top.rglob("*") if file.is_file())
        names = [file.relative_to(folder) for file in files if file.suffix.lower() not in NO_IMAGES]
        shown = [name for name in names if not any(part.startswith((".", "__MACOSX")) for part in name.parts)]
        found = [
            {"image": {"bytes": None, "path": os.path.abspath(folder / name)}, "file_name": name.as_posix()}
            for name in shown
        ]
    if not found:
        raise DataError(f"{source} holds no images to pretrain on (of split train, where splits are given).")
    return found


def policy_name(data: str) -> str:
    """The policy for a data set of that name."""
    known = data.removesuffix(DEMO)
    return known if known in POLICIES else "default"


def decode(parts: Mapping[str, list[dict]], file: Path, side: int, progress: bool) -> dict:
    """Write all images as one array `[N, 3, side, side]`, beside and then renamed; returns counts and skipped files."""

    def read(record: dict) -> np.ndarray | str:
        try:
            return square(read_record(record), side)
        except ImageError:
            return record["file_name"]

    records = [(name, record) for name, part in parts.items() for record in part]
    counts, skipped, kept = dict.fromkeys(parts, 0), [], 0
    raw = file.with_suffix(f".{os.getpid()}.raw")
    with raw.open("wb") as stream, ThreadPoolExecutor(processors()) as pool:
        with tqdm(total=len(records), desc="decode", unit="img", disable=not progress) as bar:
            for start in range(0, len(records), CHUNK):
                chunk = records[start : start + CHUNK]
                for (name, _), found in zip(chunk, pool.map(lambda item: read(item[1]), chunk), strict=True):
                    if isinstance(found, str):
                        skipped.append(found)
                        continue
                    stream.write(np.ascontiguousarray(found).tobytes())
                    counts[name], kept = counts[name] + 1, kept + 1
                bar.update(len(chunk))
    if not kept:
        raw.unlink()
        raise DataError(f"None of the {len(records)} files of {', '.join(parts)} can be read as an image.")
    pixels = np.memmap(raw, np.uint8, "r", shape=(kept, 3, side, side))
    with written_whole(file) as beside, beside.open("wb") as stream:
        np.save(stream, pixels)
    raw.unlink()
    return {"counts": counts, "skipped": skipped, "side": side}
