"""The highest memory of a build, or of embedding a shard, at several numbers of images drawn by code.

Each is a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also for the process of each build

if TYPE_CHECKING:
    from medssl.images.preprocess import Preprocess

LABELS = ("plain", "striped")
SIDE = 128


def draw_folder(folder: Path, count: int, seed: int) -> None:
    """An image folder with metadata.csv: `count` noisy pictures of two labels, two a group."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "label", "group_id"])
        for number in range(count):
            label = number // 2 % 2
            pixels = random.normal(120, 40, (SIDE, SIDE, 3))
            pixels[:: 8 if label else SIDE] -= 60
            name = f"{number:06d}.jpg"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name, quality=80)
            table.writerow([name, LABELS[label], f"group-{number // 2}"])


def build(data: Path, backbone: str, place: Path, side: int | None) -> int:
    """Build without a bundle folder; how many cases it has."""
    from medssl.backbones.backbone import shared_backbone
    from medssl.bundle.build import build_bundle

    settings = {"head": "linear", "explainer_seconds": 0, "cache_dir": place, "progress": False, "labels": LABELS}
    preprocess = of_side(shared_backbone(backbone).preprocess, side)
    return len(build_bundle(data, "stripes", backbone, preprocess=preprocess, **settings).cases)


def embed(data: Path, backbone: str, place: Path, side: int | None) -> int:
    """Embed all of it as one shard; how many pictures that are."""
    from medssl.backbones.backbone import shared_backbone
    from medssl.backbones.embed_shard import embed_shard
    from medssl.backbones.embedder import Embedder
    from medssl.backbones.shards import ShardNumber
    from medssl.data.load import load_data

    encoder = shared_backbone(backbone)
    embedder = Embedder.of(encoder, of_side(encoder.preprocess, side))
    return embed_shard(load_data(data), embedder, ShardNumber.parse("1/1"), place, progress=False).images


WORKS = {"build": build, "embed": embed}


def of_side(preprocess: Preprocess, side: int | None) -> Preprocess:
    """The same at another side in pixels, where one is given."""
    return replace(preprocess, size=(side, side)) if side else preprocess


def tell(work: str, data: Path, backbone: str, side: int | None, told: multiprocessing.Queue) -> None:
    """Do it, and tell the seconds and the process's highest memory in MB before and after."""
    import medssl.bundle.build  # noqa: F401  all that either imports

    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    images = WORKS[work](data, backbone, data.parent / "made", side)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told.put({"seconds": time.perf_counter() - started, "before_mb": before, "peak_mb": after, "cases": images})


def measure(count: int, backbone: str, seed: int, work: str = "build", side: int | None = None) -> dict:
    """Draw, work in a fresh process, and what it told."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="build-memory-") as place:
        draw_folder(Path(place) / "data", count, seed)
        told = context.Queue()
        process = context.Process(target=tell, args=(work, Path(place) / "data", backbone, side, told))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"The {work} of {count} images ended with {process.exitcode}.")
        found = told.get()
    return {"images": count, **found}


def main(asked: Sequence[str] | None = None) -> None:
    """Measure and print a table, and JSON after it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--backbone", default="medssl-tiny", help="a registry name, a Hub id or a folder")
    parser.add_argument("--work", choices=list(WORKS), default="build")
    parser.add_argument("--input-size", type=int, help="input side in pixels (default: the backbone's)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(asked)
    given = (arguments.backbone, arguments.seed, arguments.work, arguments.input_size)
    rows = [measure(count, *given) for count in arguments.counts]
    print("| images | peak memory (MB) | after the imports (MB) | seconds |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['images']} | {row['peak_mb']:.0f} | {row['before_mb']:.0f} | {row['seconds']:.0f} |")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
