"""What embeddings are best made of, and compared in: every reading and every space on tasks and encoders, as tables.

Accuracy is of a ridge probe fitted on train, with the penalty that validation chooses (for validation itself, that the
other half of its groups chooses). P@1, P@5 and mAP@10 search the train split, own groups left out. What a build would
choose is chosen on validation; the test columns chose nothing. Each encoder sees an image once, and a pair of task and
encoder that the JSON file holds is not measured again, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from marks import put_between

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.backbones.reading import Reading, union
from medssl.bundle.measure import part_of
from medssl.data.labelled import Labelled
from medssl.data.load import load_data
from medssl.data.rows import SPLITS
from medssl.data.split import split_data
from medssl.errors import MedSSLError
from medssl.files import written_whole
from medssl.heads.calibration import FAMILIARITY_PERCENTILE, nearest_similarity
from medssl.heads.reading_choice import (
    choose_reading,
    held_out_hits,
    readings_to_try,
    ridge_logits,
    with_columns,
)
from medssl.library.fit_space import choose_space, fit_spaces, space_figures
from medssl.library.space import mapped
from medssl.metrics.retrieval import RETRIEVAL

BEGIN, END = "<!-- readings: written by scripts/benchmarks/readings.py -->", "<!-- readings: end -->"
FIGURES = ("accuracy", *RETRIEVAL)
COLUMNS = ("accuracy", "P@1", "P@5", "mAP@10")


def readings_to_measure(backbone: Backbone, as_build: bool = False) -> dict[str, Reading]:
    """The candidates of a build, and unless `as_build` CLS of further single blocks, the plainest first."""
    found = dict(readings_to_try(backbone))
    if as_build:
        return found
    for block in (backbone.depth // 2, 2 * backbone.depth // 3, backbone.depth - 2):
        if block > 0 and f"cls{block}" not in found:
            found[f"cls{block}"] = Reading.parse(f"cls{block}")
    return dict(sorted(found.items(), key=lambda item: len(item[1].parts)))


def retrieval(space: object, queries: Labelled, cases: Labelled) -> dict[str, float]:
    """P@1, P@5 and mAP@10 without intervals."""
    figures = space_figures(space, queries, cases, 1, 0)
    return {name: figures[name]["value"] for name in RETRIEVAL}


def reading_row(sides: Mapping[str, Labelled], classes: int, seed: int) -> dict:
    """Accuracy and plain retrieval of one reading on validation and test."""
    train, validation, test = (sides[name] for name in SPLITS)
    hits = [found.argmax(1) == validation.labels for found in ridge_logits(train, validation, classes)]
    best = int(np.argmax([found.mean() for found in hits]))
    right = ridge_logits(train, test, classes)[best].argmax(1) == test.labels
    held_out = held_out_hits(train, validation, classes, seed)
    return {
        "val": {"accuracy": float(held_out.mean()), **retrieval(None, validation, train)},
        "test": {"accuracy": float(right.mean()), **retrieval(None, test, train)},
    }


def space_rows(sides: Mapping[str, Labelled], others: Mapping[str, Labelled], seed: int) -> dict:
    """Retrieval in each space on validation and test, and the shares that familiarity there would flag."""
    train, validation, test = (sides[name] for name in SPLITS)
    _, record = choose_space(train, validation, seed=seed)
    rows = {}
    for name, space in fit_spaces(train).items():
        known = mapped(space, train)
        threshold = np.percentile(nearest_similarity(mapped(space, validation), known), FAMILIARITY_PERCENTILE)
        flagged = {
            other: float((nearest_similarity(mapped(space, images), known) < threshold).mean())
            for other, images in {"own test": test, **others}.items()
        }
        rows[name] = {
            "val": retrieval(space, validation, train),
            "test": retrieval(space, test, train),
            "flagged": flagged,
            "chosen": name == record["chosen"],
        }
    return rows


def measure_pair(
    every: Mapping[str, Mapping[str, Labelled]],
    task: str,
    backbone: Backbone,
    readings: Mapping[str, Reading],
    names: list[str],
    seed: int,
) -> dict:
    """All rows of one task and encoder; `every` holds each task's splits, embedded with all readings."""
    wider, width = union(readings.values()), backbone.dimension

    def read(reading: Reading, name: str) -> dict[str, Labelled]:
        columns = reading.columns(wider, width)
        return {split: with_columns(images, columns) for split, images in every[name].items()}

    tried = readings_to_try(backbone)
    narrow = read(union(tried.values()), task)
    chosen, _ = choose_reading(narrow["train"], narrow["val"], tried, width, len(names), seed)
    rows = {}
    for name, reading in readings.items():
        row = reading_row(read(reading, task), len(names), seed)
        rows[name] = {"pooling": reading.pooling, "tried_by_build": name in tried, "chosen": reading == chosen, **row}
    spaces = {}
    for name, reading in {next(iter(tried)): next(iter(tried.values())), "the chosen": chosen}.items():
        others = {other: read(reading, other)["test"] for other in every if other != task}
        spaces[name] = {"pooling": reading.pooling, "spaces": space_rows(read(reading, task), others, seed)}
    counts = {split: [len(part), len(set(part.groups))] for split, part in every[task].items()}
    return {"images_and_groups": counts, "readings": rows, "spaces": spaces}


def embed_splits(
    data: str, backbone: Backbone, readings: Mapping[str, Reading], cache: str | None, seed: int
) -> tuple[dict[str, Labelled], list[str]]:
    """A task's splits embedded with every reading in one forward an image, and its labels."""
    pooling = union(readings.values()).pooling
    dataset = Embedder.of(backbone, pooling=pooling).embed(split_data(load_data(data), seed=seed), cache)
    return {split: part_of(dataset, split) for split in SPLITS}, dataset.features["label"].names


def numbers(figures: Mapping[str, float], names: tuple[str, ...]) -> str:
    """Figures as cells."""
    return " | ".join(f"{figures[name]:.3f}" for name in names)


def header(columns: list[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]


def tables(found: Mapping[str, Mapping]) -> str:
    """Both tables as Markdown."""
    sides = [f"{split}: {column}" for split in ("val", "test") for column in COLUMNS]
    lines = header(["task", "encoder", "reading", *sides])
    for key, pair in found.items():
        encoder, task = key.split("/")
        for name, row in pair["readings"].items():
            named = name if name == row["pooling"] else f"{name} ({row['pooling']})"
            named += "" if row["tried_by_build"] else " (not a candidate)"
            named = f"**{named}, chosen**" if row["chosen"] else named
            cells = " | ".join(numbers(row[side], FIGURES) for side in ("val", "test"))
            lines.append(f"| {task} | {encoder} | {named} | {cells} |")
    sides = [f"{split}: {column}" for split in ("val", "test") for column in COLUMNS[1:]]
    lines += ["", *header(["task", "encoder", "reading", "space", *sides, "familiarity there would flag of test"])]
    for key, pair in found.items():
        encoder, task = key.split("/")
        for name, reading in pair["spaces"].items():
            for space, row in reading["spaces"].items():
                named = f"**{space}, chosen**" if row["chosen"] else space
                cells = " | ".join(numbers(row[side], RETRIEVAL) for side in ("val", "test"))
                flagged = ", ".join(f"{other} {share:.3f}" for other, share in row["flagged"].items())
                lines.append(f"| {task} | {encoder} | {name} ({reading['pooling']}) | {named} | {cells} | {flagged} |")
    return "\n".join(lines)


def main() -> int:
    """Measure what is missing, pair by pair, and write file and page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", required=True, help="backbones: names, Hub ids or folders")
    parser.add_argument("--data", nargs="+", required=True, help="labelled folders; each is another task to the others")
    parser.add_argument("--out", required=True, help="the JSON file of the figures; what it holds is kept")
    parser.add_argument("--page", help="a Markdown page to write the tables into, between its marks")
    parser.add_argument("--seed", type=int, default=0, help="seed of splits and halves (default: 0)")
    parser.add_argument("--cache", help="where embeddings are cached (default: MEDSSL_CACHE)")
    parser.add_argument(
        "--as-build", action="store_true", help="a build's readings and precision, so that its cached embeddings serve"
    )
    arguments = parser.parse_args()
    out = Path(arguments.out)
    found = json.loads(out.read_text("utf-8")) if out.is_file() else {}
    try:
        for source in arguments.backbone:
            backbone = Backbone.from_pretrained(source, precision="auto" if arguments.as_build else "fp32")
            readings = readings_to_measure(backbone, arguments.as_build)
            keys = {f"{Path(backbone.id).name}/{Path(data).name}": data for data in arguments.data}
            if set(keys) <= set(found):
                continue
            embedded = {
                Path(data).name: embed_splits(data, backbone, readings, arguments.cache, arguments.seed)
                for data in arguments.data
            }
            every = {name: sides for name, (sides, _) in embedded.items()}
            for key, data in keys.items():
                if key in found:
                    continue
                task = Path(data).name
                found[key] = measure_pair(every, task, backbone, readings, embedded[task][1], arguments.seed)
                with written_whole(out) as beside:
                    beside.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        if arguments.page:
            put_between(Path(arguments.page), BEGIN, END, tables(found))
    except MedSSLError as error:
        print(error, file=sys.stderr)
        return 2
    print(tables(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
