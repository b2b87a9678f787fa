"""The rows of a Hub data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import httpx
from datasets import ClassLabel, Dataset, DatasetDict, Image, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetsError

from medssl.data.annotations import BOXES_FEATURE
from medssl.data.columns import read_header
from medssl.data.groups import read_groups
from medssl.data.notes import with_notes
from medssl.data.rows import BOX_COLUMNS, BOXES, NO_VALUE, SPLIT_NAMES, TEXT, box_values
from medssl.data.table import read_splits
from medssl.errors import DataError


def hub_rows(source: str, revision: str | None) -> Dataset:
    """A Hub data set's rows, labels as text. Raises DataError when it cannot be loaded or lacks columns."""
    with failures_said(source):
        loaded = load_dataset(source, revision=revision)
    return joined_parts(loaded if isinstance(loaded, DatasetDict) else {"train": loaded}, source)


@contextmanager
def failures_said(source: str) -> Iterator[None]:
    """Turns what goes wrong while a Hub data set is opened into a DataError with one sentence."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetsError, httpx.HTTPError) as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
        raise DataError(
            f"{source!r} is no folder here, and the Hub data set of that name could not be loaded: {first}. "
            "Check the name, the revision and the network."
        ) from error


def joined_parts(parts: Mapping[str, Dataset], source: str) -> Dataset:
    """The splits of a Hub data set as one, in our columns. Raises DataError."""
    read = [hub_part(part, name, len(parts) > 1, source) for name, part in parts.items()]
    notes = list(dict.fromkeys(note for _, about in read for note in about))
    return with_notes(concatenate_datasets([dataset for dataset, _ in read]), notes)


def hub_boxes(sides: Sequence[Sequence], places: Sequence[str]) -> list[dict]:
    """The box of each row out of its four columns, held to what a folder's boxes are. Raises DataError."""

    def text(value: object) -> str:
        return "" if value is None or value != value else str(value)  # NaN is how tables write "none"

    rows = zip(*sides, strict=True)
    lines = ({name: text(side) for name, side in zip(BOX_COLUMNS, row, strict=True)} for row in rows)
    return [box_values(line, place) for line, place in zip(lines, places, strict=True)]


def hub_part(part: Dataset, name: str, several: bool, source: str) -> tuple[Dataset, list[str]]:
    """One split of a Hub data set in our columns, labels as text, and what is to be said of it. Raises DataError."""
    count = len(part)
    if "image" not in part.column_names:
        raise DataError(f"{source} lacks the column image; it has: {', '.join(part.column_names)}.")
    columns = read_header([column for column in part.column_names if column != "image"], source, ("label",))
    if not isinstance(part.features["image"], Image):
        raise DataError(f"The column image of {source} holds {part.features['image']}, not images.")
    label = columns.cells["label"][0]
    feature, values = part.features[label], part[label][:]
    if isinstance(feature, ClassLabel):
        # -1 is what datasets writes for "not labelled", as in a hidden test split.
        values = [feature.names[value] if value is not None and value >= 0 else None for value in values]
    without = [index for index, value in enumerate(values) if value is None or str(value).strip().lower() in NO_VALUE]
    if without:
        raise DataError(
            f"{len(without)} of {count} rows of {source}, split {name}, have no label (first: row {without[0]}). "
            "Label them or leave them out."
        )

    def texts(column: str | None, default: Sequence[str]) -> list[str]:
        if column is None:
            return list(default)
        return [str(value) if value is not None else default[i] for i, value in enumerate(part[column][:])]

    names = texts(columns.one("file_name"), [f"{name}/{index}" for index in range(count)])
    split = SPLIT_NAMES.get(name.lower(), "") if several else ""
    places = [f"{source}, {name}/{index}" for index in range(count)]
    groups, notes = read_groups(
        {cell: texts(cell, [""] * count) for cell in columns.cells.get("group_id", [])}, names, source
    )
    made = {
        "file_name": names,
        "label": [str(value) for value in values],
        "split": read_splits(texts(columns.one("split"), [split] * count), columns.one("split"), places, source),
        "group_id": groups,
        "source": texts(columns.one("source"), [""] * count),
    }
    boxes = [columns.cells[box][0] for box in BOX_COLUMNS if box in columns.cells]
    boxes = boxes if len(boxes) == len(BOX_COLUMNS) else []
    kept = part.select_columns(["image"]).cast_column("image", Image(decode=False))
    if boxes:
        drawn = hub_boxes([part[written][:] for written in boxes], places)
        for column in BOX_COLUMNS:
            kept = kept.add_column(column, [box[column] for box in drawn], feature=Value("float32"))
        first = [None if box[BOX_COLUMNS[0]] is None else [[box[column] for column in BOX_COLUMNS]] for box in drawn]
        kept = kept.add_column(BOXES, first, feature=BOXES_FEATURE)
    for column, content in made.items():
        kept = kept.add_column(column, content, feature=TEXT)
    return kept, [*columns.notes, *notes]
