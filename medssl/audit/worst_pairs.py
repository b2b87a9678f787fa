"""The worst pairs of an audit with their pictures, for a report."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset
from PIL import Image

from medssl.audit.findings import ORDER, Finding, Pair
from medssl.data.load import read_record
from medssl.errors import DataError
from medssl.images.read import image_id

SIDE = 112


@dataclass(frozen=True)
class WorstPair:
    """Two images of a finding. Lists hold one entry for each of the two, in the same order.

    `similarity` is at most 1 and `measure` says of what; `turn` is what makes the second image the first, "" for
    nothing; `ids` are hashes of the pixels; `thumbnails` are PNG data addresses of at most 112 px a side.
    """

    kind: str
    severity: str
    similarity: float
    measure: str
    turn: str
    rows: list[int]
    files: list[str]
    ids: list[str]
    labels: list[str]
    splits: list[str]
    groups: list[str]
    thumbnails: list[str]


def worst_pairs(findings: Sequence[Finding], dataset: Dataset, most: int = 12, side: int = SIDE) -> list[WorstPair]:
    """At most `most` offending pairs with both thumbnails: errors first, then by similarity; each pair once.

    `dataset` is the audited data set, or what is left of it. Kinds take turns within a severity, so that a hundred
    pairs of one kind do not hide another. Raises DataError for a pair that is not in the data set, ImageError for a
    file that cannot be read.
    """
    queues: dict[int, list[list[tuple[Finding, Pair]]]] = {}
    seen: set[frozenset[str]] = set()
    for found in sorted(findings, key=lambda item: ORDER[item.severity]):
        fresh = [(found, pair) for pair in found.pairs if frozenset(pair.files) not in seen]
        seen.update(frozenset(pair.files) for _, pair in fresh)
        queues.setdefault(ORDER[found.severity], []).append(fresh)
    chosen: list[tuple[Finding, Pair]] = []
    for level in sorted(queues):
        rounds = max(map(len, queues[level]))
        chosen += [queue[turn] for turn in range(rounds) for queue in queues[level] if turn < len(queue)]
    names = dataset["file_name"][:]
    return [shown(found, pair, dataset, names, side) for found, pair in chosen[:most]]


def shown(found: Finding, pair: Pair, dataset: Dataset, names: list[str], side: int) -> WorstPair:
    """One pair with its facts and pictures."""
    rows = [row_of(row, file, names) for row, file in zip(pair.rows, pair.files, strict=True)]
    records = [dataset[row] for row in rows]
    images = [read_record(record) for record in records]
    label_names = dataset.features["label"].names
    return WorstPair(
        kind=found.kind,
        severity=found.severity,
        similarity=pair.similarity,
        measure=pair.measure,
        turn=pair.turn,
        rows=rows,
        files=list(pair.files),
        ids=[image_id(image) for image in images],
        labels=[label_names[record["label"]] for record in records],
        splits=[record["split"] for record in records],
        groups=[record["group_id"] for record in records],
        thumbnails=[thumbnail_address(image, side) for image in images],
    )


def row_of(row: int, file: str, names: list[str]) -> int:
    """The row of a file in a data set: as audited, or found by its name where rows were left out since."""
    if row < len(names) and names[row] == file:
        return row
    if file not in names:
        raise DataError(f"{file} is in the audit's findings and not in the data set. Give the one that was audited.")
    return names.index(file)


def thumbnail_address(image: Image.Image, side: int) -> str:
    """An RGB image as a PNG data address, at most `side` pixels a side, without any metadata."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
