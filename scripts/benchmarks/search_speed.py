"""Engines side by side at several sizes: build, memory, disk, reopening, search with the own group left out, recall."""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from medssl.library.library import CaseLibrary

SEARCH_SIZES = (1_000, 10_000, 100_000)
RECALL_AT = 10
START_SIZES = (1_000, 5_000, 20_000)
GROUP_SIZE = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--cases", type=int, nargs="+", default=SEARCH_SIZES, help="library sizes to search")
    parser.add_argument("--start", type=int, nargs="+", default=START_SIZES, help="library sizes to start from parquet")
    parser.add_argument(
        "--memory-up-to", type=int, default=100_000, help="largest size for Qdrant's local mode (default: %(default)s)"
    )
    parser.add_argument("--url", help="a Qdrant server to compare as well; its collection `benchmark` is replaced")
    parser.add_argument("--dimension", type=int, default=384, help="length of an embedding (default: 384)")
    parser.add_argument("--top-k", type=int, default=6, help="cases asked for (default: 6)")
    parser.add_argument("--queries", type=int, default=40, help="queries a size (default: 40)")
    parser.add_argument("--rounds", type=int, default=3, help="library starts a size (default: 3)")
    parser.add_argument("--seed", type=int, default=0)


def make_cases(count: int, dimension: int, seed: int, thumbnails: bool) -> pa.Table:
    """Random cases as a bundle's parquet holds them: embeddings around 20 centres, ten of a group side by side."""
    import pyarrow as pa
    from datasets import ClassLabel, Features, List, Value
    from datasets import Image as ImageFeature
    from PIL import Image

    random = np.random.default_rng(seed)
    centers = random.normal(size=(20, dimension))
    groups = np.arange(count) // GROUP_SIZE
    of_group = centers[groups % 20] + 0.7 * random.normal(size=(groups[-1] + 1, dimension))[groups]
    embeddings = (of_group + 0.3 * random.normal(size=(count, dimension))).astype(np.float32)
    pictures: list[dict | None] = [None] * count
    if thumbnails:
        kept = []
        for _ in range(50):
            stream = io.BytesIO()
            low = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(low).resize((64, 64), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
            kept.append({"bytes": stream.getvalue(), "path": None})
        pictures = [kept[row % len(kept)] for row in range(count)]
    features = Features(
        id=Value("string"),
        image=ImageFeature(),
        label=ClassLabel(names=["a", "b", "c", "d"]),
        split=Value("string"),
        group_id=Value("string"),
        source=Value("string"),
        embedding=List(Value("float32"), length=dimension),
    )
    columns = {
        "id": [f"case-{row}" for row in range(count)],
        "image": pictures,
        "label": groups % 4,
        "split": ["train"] * count,
        "group_id": [f"group-{group}" for group in groups],
        "source": ["benchmark"] * count,
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), dimension),
    }
    schema = features.arrow_schema
    arrays = [
        pa.array(columns[field.name], field.type) if field.name != "embedding" else columns[field.name]
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def resident() -> float:
    """This process's resident memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def disk_use(folder: Path) -> float:
    """What a folder takes of the disk, in MiB; holes in files do not count."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 2**20


def percentiles(milliseconds: list[float]) -> dict:
    """p50 and p95."""
    low, high = np.percentile(milliseconds, [50, 95])
    return {"p50_ms": float(low), "p95_ms": float(high)}


def search_at(count: int, arguments: argparse.Namespace) -> list[dict]:
    """A row of figures for each engine at one size: the same queries asked of all in turn."""
    from contextlib import ExitStack

    from datasets import Dataset

    from medssl.library.library import CaseLibrary, embedding_matrix

    dataset = Dataset(make_cases(count, arguments.dimension, arguments.seed, thumbnails=False))
    raw = embedding_matrix(dataset)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    groups = np.arange(count) // GROUP_SIZE

    def plain(query: np.ndarray, group: int, top_k: int) -> list[str]:
        scores = unit @ (query / np.linalg.norm(query))
        scores[groups == group] = -np.inf
        best = np.argpartition(scores, -top_k)[-top_k:]
        return [f"case-{row}" for row in best[np.argsort(-scores[best], kind="stable")]]

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        places = {"memory": ":memory:"} if count <= arguments.memory_up_to else {}
        places |= {"embedded": folder} | ({"server": arguments.url} if arguments.url else {})
        figures: dict[str, dict] = {"numpy": {}}
        libraries: dict[str, CaseLibrary] = {}
        for name, place in places.items():
            before, started = resident(), time.perf_counter()
            library = CaseLibrary(dataset, place, name="benchmark", timeout=600)
            figures[name] = {"build_s": time.perf_counter() - started, "memory_mib": resident() - before}
            if name == "embedded":
                library.close()
                before, started = resident(), time.perf_counter()
                library = CaseLibrary(dataset, place, name="benchmark")
                figures[name] |= {"open_s": time.perf_counter() - started, "memory_mib": resident() - before}
                figures[name]["disk_mib"] = disk_use(Path(folder))
            libraries[name] = stack.enter_context(library)
        ways = {name: searcher(library, arguments.top_k) for name, library in libraries.items()}
        ways["numpy"] = lambda query, group: plain(query, group, arguments.top_k)
        times: dict[str, list[float]] = {name: [] for name in ways}
        found: dict[str, list[float]] = {name: [] for name in libraries}
        random = np.random.default_rng(arguments.seed + 1)
        for number in range(arguments.queries + 2):
            row = int(random.integers(count))
            query = raw[row] + 0.1 * random.normal(size=arguments.dimension).astype(np.float32)
            for name, ask in ways.items():
                started = time.perf_counter()
                ask(query, groups[row])
                if number >= 2:  # the first two warm up
                    times[name].append(1e3 * (time.perf_counter() - started))
            truth = set(plain(query, groups[row], RECALL_AT))
            for name, library in libraries.items():
                found[name].append(len(truth & set(searcher(library, RECALL_AT)(query, groups[row]))) / RECALL_AT)
    return [
        {
            "cases": count,
            "engine": name,
            **figures[name],
            **percentiles(times[name]),
            "recall": mean_of(found.get(name)),
        }
        for name in ways
    ]


def mean_of(values: list[float] | None) -> float:
    """The mean; 1 for numpy, which is what the others are compared with."""
    return 1.0 if values is None else float(np.mean(values))


def searcher(library: CaseLibrary, top_k: int) -> Callable[[np.ndarray, int], list[str]]:
    """The library as a function of a query and the number of the group to leave out: the ids found."""
    return lambda query, group: [case.id for case in library.search(query, top_k, exclude_group=f"group-{group}")]


def start_at(count: int, arguments: argparse.Namespace) -> dict:
    """Median seconds from a parquet file with thumbnails to a library in memory that can be searched."""
    import pyarrow.parquet as pq
    from datasets import Dataset

    from medssl.library.library import CaseLibrary

    times: dict[str, list[float]] = {"read": [], "build": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.parquet"
        pq.write_table(make_cases(count, arguments.dimension, arguments.seed, thumbnails=True), path)
        size = path.stat().st_size
        for _ in range(arguments.rounds):
            started = time.perf_counter()
            dataset = Dataset(pq.read_table(path))
            read = time.perf_counter()
            library = CaseLibrary(dataset, ":memory:", name="benchmark")
            times["build"].append(time.perf_counter() - read)
            times["read"].append(read - started)
            library.close()
    figures = {f"{name}_s": statistics.median(values) for name, values in times.items()}
    return {"cases": count, **figures, "total_s": sum(figures.values()), "parquet_mb": size / 1e6}


def run(arguments: argparse.Namespace) -> dict:
    """Measure both and print their tables."""
    with warnings.catch_warnings():
        # Qdrant advises a server past 20,000 local cases; how slow it gets here is what is measured.
        warnings.filterwarnings("ignore", message="Local mode is not recommended")
        search = [row for count in arguments.cases for row in search_at(count, arguments)]
        start = [start_at(count, arguments) for count in arguments.start]
    print(f"Search, top {arguments.top_k}, own group left out, {arguments.dimension} dimensions\n")
    print("| cases | engine | build, s | open, s | memory, MiB | disk, MiB | p50, ms | p95, ms | recall@10 |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in search:
        cells = [f"{row[name]:.1f}" if name in row else "" for name in ("build_s", "open_s", "memory_mib", "disk_mib")]
        print(
            f"| {row['cases']:,} | {row['engine']} | {' | '.join(cells)} | {row['p50_ms']:.2f} | {row['p95_ms']:.2f} | "
            f"{row['recall']:.4f} |"
        )
    print(f"\nLibrary start from parquet with 64 px thumbnails (medians of {arguments.rounds})\n")
    print("| cases | read, s | build, s | together, s |\n| ---: | ---: | ---: | ---: |")
    for row in start:
        print(f"| {row['cases']:,} | {row['read_s']:.2f} | {row['build_s']:.2f} | {row['total_s']:.2f} |")
    return {"search": search, "start": start, "dimension": arguments.dimension, "seed": arguments.seed}
