"""Search with the query's own group left out, against numpy, and library start from parquet, at several sizes."""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

SEARCH_SIZES = (1_000, 10_000, 100_000)
START_SIZES = (1_000, 5_000, 20_000)
GROUP_SIZE = 10
SCORE_TOLERANCE = 1e-5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--cases", type=int, nargs="+", default=SEARCH_SIZES, help="library sizes to search")
    parser.add_argument("--start", type=int, nargs="+", default=START_SIZES, help="library sizes to start from parquet")
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


def search_at(count: int, arguments: argparse.Namespace) -> dict:
    """Medians in ms of both ways of search at one size, each query asked of both in turn, answers compared."""
    from datasets import Dataset

    from medssl.errors import LibraryError
    from medssl.library.library import CaseLibrary, embedding_matrix

    dataset = Dataset(make_cases(count, arguments.dimension, arguments.seed, thumbnails=False))
    raw = embedding_matrix(dataset)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    groups = np.arange(count) // GROUP_SIZE
    top_k = arguments.top_k

    def plain(query: np.ndarray, group: int) -> np.ndarray:
        scores = unit @ (query / np.linalg.norm(query))
        scores[groups == group] = -np.inf
        best = np.argpartition(scores, -top_k)[-top_k:]
        return best[np.argsort(-scores[best], kind="stable")]

    random = np.random.default_rng(arguments.seed + 1)
    times: dict[str, list[float]] = {"library": [], "numpy": []}
    with CaseLibrary(dataset, ":memory:", name="benchmark") as library:
        for number in range(arguments.queries + 2):
            row = int(random.integers(count))
            query = raw[row] + 0.1 * random.normal(size=arguments.dimension).astype(np.float32)
            started = time.perf_counter()
            found = library.search(query, top_k, exclude_group=f"group-{groups[row]}")
            between = time.perf_counter()
            rows = plain(query, groups[row])
            ended = time.perf_counter()
            scores = unit[rows].astype(np.float64) @ (query / np.linalg.norm(query)).astype(np.float64)
            same_rows = [case.id for case in found] == [f"case-{index}" for index in rows]
            if not same_rows or not np.allclose([case.score for case in found], scores, atol=SCORE_TOLERANCE):
                raise LibraryError(f"Search and numpy differ at {count} cases, query {number}: {found} against {rows}.")
            if number >= 2:  # the first two warm up
                times["library"].append(1e3 * (between - started))
                times["numpy"].append(1e3 * (ended - between))
    medians = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    return {"cases": count, **medians, "queries": arguments.queries, "exact": True}


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
    """Measure both, print their tables, and return the figures. Raises LibraryError where an answer differs."""
    with warnings.catch_warnings():
        # Qdrant advises a server past 20,000 local cases; how slow it gets here is what is measured.
        warnings.filterwarnings("ignore", message="Local mode is not recommended")
        search = [search_at(count, arguments) for count in arguments.cases]
        start = [start_at(count, arguments) for count in arguments.start]
    print(f"Search, top {arguments.top_k}, own group left out, {arguments.dimension} dimensions, in memory (medians)\n")
    print("| cases | medssl + Qdrant, ms | numpy, ms | same answers |\n| ---: | ---: | ---: | --- |")
    for row in search:
        same = f"{row['queries']} of {row['queries']}"  # a single difference would have raised
        print(f"| {row['cases']:,} | {row['library_ms']:.2f} | {row['numpy_ms']:.2f} | {same} |")
    print(f"\nLibrary start from parquet with 64 px thumbnails (medians of {arguments.rounds})\n")
    print("| cases | read, s | build, s | together, s |\n| ---: | ---: | ---: | ---: |")
    for row in start:
        print(f"| {row['cases']:,} | {row['read_s']:.2f} | {row['build_s']:.2f} | {row['total_s']:.2f} |")
    return {"search": search, "start": start, "dimension": arguments.dimension, "seed": arguments.seed}
