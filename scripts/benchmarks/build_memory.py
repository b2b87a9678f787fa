"""The highest memory of a build at several numbers of images, each in a process of its own; pictures drawn by code."""

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
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also for the process of each build

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


def build(data: Path, backbone: str, cache: Path, told: multiprocessing.Queue) -> None:
    """Build without a bundle folder, and tell the seconds and the process's highest memory in MB before and after."""
    from medssl.bundle.build import build_bundle

    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    bundle = build_bundle(
        data, "stripes", backbone, head="linear", explainer_seconds=0, cache_dir=cache, progress=False, labels=LABELS
    )
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told.put(
        {"seconds": time.perf_counter() - started, "before_mb": before, "peak_mb": after, "cases": len(bundle.cases)}
    )


def measure(count: int, backbone: str, seed: int) -> dict:
    """Draw, build in a fresh process, and what it told."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="build-memory-") as place:
        draw_folder(Path(place) / "data", count, seed)
        told = context.Queue()
        process = context.Process(target=build, args=(Path(place) / "data", backbone, Path(place) / "cache", told))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"The build of {count} images ended with {process.exitcode}.")
        found = told.get()
    return {"images": count, **found}


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print a table, and JSON after it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--backbone", default="medssl-tiny", help="a registry name, a Hub id or a folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(given)
    rows = [measure(count, arguments.backbone, arguments.seed) for count in arguments.counts]
    print("| images | peak memory (MB) | after the imports (MB) | seconds |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['images']} | {row['peak_mb']:.0f} | {row['before_mb']:.0f} | {row['seconds']:.0f} |")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
