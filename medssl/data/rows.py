"""What a row of a data set is: its columns, and how cells are read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from datasets import Image, Value

from medssl.errors import DataError

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
BOX_COLUMNS = ("box_left", "box_top", "box_right", "box_bottom")
BOXES, MASK_FILE = "boxes", "mask_file"
# What R, pandas, spreadsheets and their kin write, or read, for "no value" or for a formula that failed.
NO_VALUE = {"", "na", "nan", "nat", "<na>", "n/a", "n.a.", "#na", "#n/a", "null", "#null!"}
NO_VALUE |= {"#ref!", "#value!", "#name?", "#div/0!", "#num!"}
# People also write these where nothing is known; a class may be called so, a group is not.
NO_GROUP = NO_VALUE | {"none", "nil", "unknown", "unk", "not known", "missing", "not available", "not applicable"}
NO_GROUP |= {"tbd", "anonymous", "anonymized", "anonymised", "anon", "undefined", ".", "-", "--", "---", "?", "??", "*"}
TEXT = Value("string")
COLUMNS = {
    "image": Image(decode=False),
    "file_name": TEXT,
    "label": TEXT,
    "split": TEXT,
    "group_id": TEXT,
    "source": TEXT,
}


def base_row(file: str | Path, name: str, label: str, split: str) -> dict:
    """One row with the columns that every data set has."""
    image = {"path": str(file), "bytes": None}
    return {"image": image, "file_name": name, "label": label, "split": split, "group_id": name, "source": ""}


def file_inside(root: str, name: str, place: str) -> str:
    """The file that a table names inside its folder `root`. Raises DataError for one that lies outside or is not there.

    By the words of the path, not by where a link leads: Hub snapshots are folders of links to elsewhere.
    """
    file = os.path.normpath(os.path.join(root, name))
    if not file.startswith(os.path.join(root, "")):
        raise DataError(f"{place} names {name!r}, which lies outside the folder. Use paths inside it.")
    if "\0" in name or not os.path.isfile(file):
        raise DataError(f"{place} names {name!r}, which does not exist. Put the file there or remove the line.")
    return file


def split_name(text: str, place: str) -> str:
    """train, val, test or "" from any of their usual names."""
    if text.lower() in NO_VALUE:
        return ""
    if text.lower() not in SPLIT_NAMES:
        raise DataError(f"{place} has the split {text!r}. Allowed: {', '.join(SPLITS)}, or nothing.")
    return SPLIT_NAMES[text.lower()]


def box_values(line: Mapping[str, str], place: str) -> dict[str, float | None]:
    """The four box fractions of width and height, None where the line has none. Raises DataError."""
    texts = [(line[name] or "").strip() for name in BOX_COLUMNS]
    if all(text.lower() in NO_VALUE for text in texts):
        return dict.fromkeys(BOX_COLUMNS)
    try:
        left, top, right, bottom = map(float, texts)
    except ValueError as error:
        raise DataError(f"{place} has a box value that is no number: {', '.join(texts)}.") from error
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise DataError(
            f"{place} has the box left, top, right, bottom = {', '.join(texts)}. Allowed: fractions of width and "
            "height in 0..1, left below right and top below bottom; or all four empty."
        )
    return dict(zip(BOX_COLUMNS, (left, top, right, bottom), strict=True))
