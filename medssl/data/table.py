"""The rows of a metadata.csv."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from medssl.data.columns import Columns, read_header
from medssl.data.groups import looks_like_groups, read_groups
from medssl.data.rows import (
    BOX_COLUMNS,
    BOXES,
    MASK_FILE,
    NO_VALUE,
    SPLIT_NAMES,
    base_row,
    box_values,
    file_inside,
    split_name,
)
from medssl.errors import DataError

DELIMITERS = ",;\t"


def find_table(folder: Path) -> Path | None:
    """The metadata.csv of a folder, whatever its case. Raises DataError where there are two."""
    tables = sorted(path for path in folder.iterdir() if path.name.lower() == "metadata.csv" and path.is_file())
    if len(tables) > 1:
        raise DataError(f"{folder} holds {' and '.join(path.name for path in tables)}. Keep one of them.")
    return tables[0] if tables else None


def read_lines(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a CSV file, each line as long as the header. Raises DataError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.split("\n", 1)[0]
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=first.count)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a UTF-8 CSV file: {error}.") from error
    header = lines[0] if lines else []
    whole = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) > len(header) and any(cell.strip() for cell in line[len(header) :]):
            raise DataError(
                f"{path.name} line {number} has {len(line)} cells and the header {len(header)}. Put values with a "
                "comma into quotation marks."
            )
        whole.append([*line, *[""] * (len(header) - len(line))][: len(header)])
    return header, whole


def table_rows(path: Path) -> tuple[list[dict], list[str]]:
    """The rows of a metadata.csv, and what is to be said of how it was read.

    Raises DataError for missing columns, files, labels or odd values.
    """
    header, lines = read_lines(path)
    columns = read_header(header, path.name)
    position = {cell: index for index, cell in enumerate(header)}
    # A blank line is no row; its number still counts in messages.
    numbered = [(number, line) for number, line in enumerate(lines, start=2) if any(cell.strip() for cell in line)]
    cells = {
        name: [[line[position[cell]].strip() for _, line in numbered] for cell in kept]
        for name, kept in columns.cells.items()
    }
    places = [f"{path.name} line {number}" for number, _ in numbered]
    rows = read_rows(path, places, {name: kept[0] for name, kept in cells.items()}, columns)
    names = [row["file_name"] for row in rows]
    groups, notes = read_groups(
        dict(zip(columns.cells.get("group_id", []), cells.get("group_id", []), strict=True)), names, path.name
    )
    for row, group in zip(rows, groups, strict=True):
        row["group_id"] = group
    if "group_id" not in cells:
        for cell in columns.unused:
            values = [line[position[cell]] for _, line in numbered]
            if looks_like_groups(values, [row["label"] for row in rows]):
                notes.append(
                    f"{path.name}: the values of {cell!r} repeat and go with one label each, as patients do. Call it "
                    "group_id if the images of one must stay on one side of a split."
                )
    blank = [index for index, cell in enumerate(header) if not cell.strip()]
    nameless = [index for index in blank if any(line[index].strip() for _, line in numbered)]
    if nameless:
        notes.append(f"{path.name}: not used: {len(nameless)} column(s) without a name.")
    return one_a_picture(rows, path.name), [*columns.notes, *notes]


def one_a_picture(rows: Sequence[dict], table: str) -> list[dict]:
    """The rows, those of one picture as one with all its boxes. Raises DataError where they say different things."""
    pictures: dict[str, dict] = {}
    for row in rows:
        first = pictures.setdefault(row["image"]["path"], row)
        if first is row:
            continue
        for column in ("label", "split", "group_id", "source", MASK_FILE):
            if first.get(column) != row.get(column):
                raise DataError(
                    f"{table} has several lines of {row['file_name']!r}, one a box, with different values of {column} "
                    f"({first.get(column)!r}, {row.get(column)!r}). Make them the same."
                )
        first[BOXES] += row[BOXES]
    return list(pictures.values())


def read_rows(path: Path, places: Sequence[str], cells: Mapping[str, Sequence[str]], columns: Columns) -> list[dict]:
    """The rows without their groups; `cells` are the values of our columns. Raises DataError."""
    root, rows = os.path.abspath(path.parent), []
    seen: dict[str, bool] = {}
    splits = read_splits(cells.get("split"), columns.one("split"), places, path.name)
    boxes = all(name in cells for name in BOX_COLUMNS)
    for index, place in enumerate(places):
        name, label = cells["file_name"][index], cells["label"][index]
        for value, what in ((name, "file_name"), (label, "label")):
            if value.lower() in NO_VALUE:
                said = f" ({value!r} means no value)" if value else ""
                raise DataError(f"{place} has no {what}{said}. Fill it in or remove the line.")
        file = file_inside(root, name, place)
        box = box_values({column: cells[column][index] for column in BOX_COLUMNS}, place) if boxes else {}
        # A picture with several lesions has a line for each.
        several = bool(boxes) and None not in box.values()
        if file in seen and not (several and seen[file]):
            raise DataError(f"{place} names {name!r} a second time. Remove one of the lines.")
        seen[file] = several
        row = base_row(file, name, label, splits[index])
        source = cells["source"][index] if "source" in cells else ""
        row["source"] = "" if source.lower() in NO_VALUE else source
        row.update(box)
        if several:
            row[BOXES] = [tuple(box.values())]
        mask = cells[MASK_FILE][index] if MASK_FILE in cells else ""
        if mask.lower() not in NO_VALUE:
            row[MASK_FILE] = file_inside(root, mask, place)
        rows.append(row)
    return rows


def read_splits(values: Sequence[str] | None, cell: str | None, places: Sequence[str], table: str) -> list[str]:
    """Each row's split, "" where none is given. Raises DataError for one that there is not, or for numbered folds."""
    if values is None:
        return [""] * len(places)
    if cell is not None and cell.strip().lower() != "split":
        odd = sorted({value for value in values if value.lower() not in SPLIT_NAMES and value.lower() not in NO_VALUE})
        if odd:
            raise DataError(
                f"The column {cell!r} of {table} would say on which side of a split an image is, and holds "
                f"{', '.join(map(repr, odd[:5]))}. Allowed: train, val, test. Write them there, or rename the column "
                "if it means something else."
            )
    return [split_name(value, place) for value, place in zip(values, places, strict=True)]
