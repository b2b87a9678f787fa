"""Regions that are alike: does the region found in the top case lie on its lesion, and what a case takes.

The query is the lesion's box of a test picture, of several the first. A hit is a case whose found region has its middle
in a lesion's box; beside it stands a window of the same size at a random place of the same case. Cases of the query's
own group are left out. Milliseconds are of an index that repeats the bundle's cases.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from datasets import Dataset

    from medssl.bundle.bundle import Bundle
    from medssl.library.regions import Box, RegionIndex

SIZES = (1_000, 10_000)
QUERY = (4, 4)  # patches of the timed query
ROUNDS = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's arguments."""
    parser.add_argument("--bundle", required=True, help="a bundle; where it holds no regions they are made here")
    parser.add_argument("--data", required=True, help="the data it was built from, with boxes or masks")
    parser.add_argument("--n", type=int, default=200, help="test pictures, drawn by seed (default %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="cases of the timed indices")
    parser.add_argument("--cache", help="where patch tokens are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def with_regions(bundle: Bundle, dataset: Dataset, cache: str | None, progress: bool) -> None:
    """Give a bundle the regions of its library, where it has none."""
    from medssl.backbones.embedder import Embedder
    from medssl.backbones.frames import DecodedFrames
    from medssl.bundle.regions import train_regions

    if bundle.regions is None:
        embedder = Embedder(bundle.backbone, bundle.head.preprocess, bundle.head.pooling)
        frames = DecodedFrames(dataset, embedder.preprocess)
        bundle.regions = train_regions(dataset, bundle.cases, frames, embedder, cache, progress)


def middle_inside(region: Box, boxes: list[Box]) -> bool:
    """Whether the middle of a region lies in one of some boxes."""
    x, y = (region[0] + region[2]) / 2, (region[1] + region[3]) / 2
    return any(left <= x < right and top <= y < bottom for left, top, right, bottom in boxes)


def moved(region: Box, random: np.random.Generator) -> Box:
    """A region of the same size at a random place."""
    width, height = region[2] - region[0], region[3] - region[1]
    left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
    return left, top, left + width, top + height


def hits_of(bundle: Bundle, dataset: Dataset, arguments: argparse.Namespace) -> dict:
    """Shares with intervals over groups: the region found, one at random, and the top case of the query's class."""
    from medssl.data.annotations import BOXES
    from medssl.data.load import read_record
    from medssl.errors import DataError
    from medssl.heads.fit_localizer import figure

    if len(bundle.cases) != len(dataset):
        raise DataError(
            f"The bundle has {len(bundle.cases)} cases, the data {len(dataset)}; give all that it was built of."
        )
    boxes = dict(zip(bundle.cases["id"][:], dataset[BOXES][:], strict=True))
    tests = [row for row in range(len(dataset)) if dataset[row]["split"] == "test" and dataset[row][BOXES]]
    random = np.random.default_rng(arguments.seed)
    chosen = np.sort(random.permutation(tests)[: arguments.n])
    found: dict[str, list[bool]] = {"region": [], "random region": [], "class": []}
    for row in tqdm(dataset.select(chosen), desc="regions", unit="img", disable=arguments.quiet):
        opened = bundle.open(read_record(row), exclude_group=row["group_id"])
        match = opened.regions(tuple(row[BOXES][0]), top_k=1)[0]
        own = boxes[match.case.id] or []
        found["region"].append(middle_inside(match.box, own))
        found["random region"].append(middle_inside(moved(match.box, random), own))
        found["class"].append(match.case.label == bundle.labels[row["label"]])
    groups = np.asarray(dataset.select(chosen)["group_id"][:])
    return {name: figure(np.array(hits, float), groups, arguments.seed) for name, hits in found.items()}


def milliseconds(index: RegionIndex, count: int, seed: int) -> float:
    """The median time of a search over that many cases, the index's own over and over."""
    from medssl.library.regions import RegionIndex

    tokens = np.resize(index.tokens, (count, *index.tokens.shape[1:]))
    larger = RegionIndex(index.config, index.mean, index.components, tokens)
    random = np.random.default_rng(seed)
    query = index.tokens[random.integers(len(index.tokens)), : QUERY[0] * QUERY[1]].astype(np.float32)
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        larger.search(query)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


def run(arguments: argparse.Namespace) -> dict:
    """Measure, and print one table."""
    from medssl.bundle.bundle import Bundle
    from medssl.data.load import load_data
    from medssl.data.split import split_data
    from medssl.metrics.metric import figure_text

    bundle = Bundle.load(arguments.bundle)
    dataset = split_data(load_data(arguments.data, labels=bundle.labels), seed=bundle.metrics["seed"])
    with_regions(bundle, dataset, arguments.cache, not arguments.quiet)
    shares = hits_of(bundle, dataset, arguments)
    times = {size: milliseconds(bundle.regions, size, arguments.seed) for size in arguments.sizes}
    grid, kilobytes = bundle.regions.config.grid, bundle.regions.bytes_a_case / 1024
    timed = [f"{size:,} cases: ms a query of {QUERY[0] * QUERY[1]} patches" for size in times]
    columns = ["task", "encoder", "pictures (groups)", "region on the lesion", "random region", "top case of its class"]
    print(f"| {' | '.join([*columns, 'KiB a case (patches)', *timed])} |")
    print(f"|{' --- |' * (len(columns) + 1 + len(timed))}")
    size = shares["region"]
    cells = [bundle.task.name, bundle.backbone.id.rsplit("/", 1)[-1], f"{size['n']} ({size['groups']})"]
    cells += [figure_text(share) for share in shares.values()]
    cells += [f"{kilobytes:.0f} ({grid[0]} x {grid[1]})", *(f"{value:.0f}" for value in times.values())]
    print(f"| {' | '.join(cells)} |")
    return {"task": bundle.task.name, **shares, "kib_a_case": kilobytes, "milliseconds": times}
