"""Load a folder or Hub data set of labelled images, and split it by group."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Image, Value, concatenate_datasets, load_dataset
from PIL import Image as PILImage
from sklearn.model_selection import StratifiedGroupKFold

from medssl.errors import DataError
from medssl.images import read_image

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
BOX_COLUMNS = ("box_left", "box_top", "box_right", "box_bottom")
IGNORED_SUFFIXES = {".csv", ".json", ".jsonl", ".txt", ".md", ".parquet"}


def read_record(record: Mapping) -> PILImage.Image:
    """The RGB image of a data set's row. Raises ImageError when it cannot be read."""
    image = record["image"]
    return read_image(image["path"] if image.get("path") and os.path.exists(image["path"]) else image["bytes"] or b"")


def load_data(source: str | Path, labels: Sequence[str] | None = None, revision: str | None = None) -> Dataset:
    """Load a folder (metadata.csv or class folders) or a Hub data set as one flat data set, pixels not yet decoded.

    Columns: image (undecoded), file_name, label (ClassLabel in declared order, sorted when not declared), split ("" where
    not given), group_id (each image its own where not given), source, and box_* where given. Raises DataError.
    """
    folder = Path(source)
    if folder.is_dir():
        dataset = folder_rows(folder)
    elif folder.exists() or str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise DataError(f"There is no data folder {str(source)!r}. Give a folder of images or a Hub data set id.")
    else:
        dataset = hub_rows(str(source), revision)
    return with_labels(dataset, labels, str(source))


def folder_rows(folder: Path) -> Dataset:
    """The rows of a folder, labels as text.

    `datasets`' own imagefolder builder is not used: it passes over DICOM and files without an extension, and takes
    train/val/test folders for labels when metadata lacks a split (datasets #7880).
    """
    metadata = folder / "metadata.csv"
    rows = metadata_rows(metadata) if metadata.is_file() else class_folder_rows(folder)
    if not rows:
        raise DataError(
            f"{folder} holds no images. Give class folders of images, or a metadata.csv with file_name,label."
        )
    return Dataset.from_list(rows).cast_column("image", Image(decode=False))


def metadata_rows(path: Path) -> list[dict]:
    """The rows of a metadata.csv. Raises DataError for missing columns, files, labels or odd values."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            lines = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a UTF-8 CSV file: {error}.") from error
    missing = [name for name in ("file_name", "label") if name not in columns]
    if missing:
        raise DataError(f"{path} lacks the column {', '.join(missing)}; found: {', '.join(columns) or 'none'}.")
    root, rows, seen = path.parent.resolve(), [], set()
    boxes = all(name in columns for name in BOX_COLUMNS)
    for number, line in enumerate(lines, start=2):
        name, label = (line["file_name"] or "").strip(), (line["label"] or "").strip()
        place = f"{path.name} line {number}"
        if not name or not label:
            raise DataError(f"{place} has no {'file_name' if not name else 'label'}. Fill it in or remove the line.")
        file = (root / name).resolve()
        if root not in file.parents:
            raise DataError(f"{place} names {name!r}, which lies outside the folder. Use paths inside it.")
        if not file.is_file():
            raise DataError(f"{place} names {name!r}, which does not exist. Put the file there or remove the line.")
        if name in seen:
            raise DataError(f"{place} names {name!r} a second time. Remove one of the lines.")
        seen.add(name)
        row = base_row(file, name, label, split_name((line.get("split") or "").strip(), place))
        row["group_id"] = (line.get("group_id") or "").strip() or name
        row["source"] = (line.get("source") or "").strip()
        if boxes:
            row.update(box_values(line, place))
        rows.append(row)
    return rows


def base_row(file: Path, name: str, label: str, split: str) -> dict:
    """One row with the columns that every data set has."""
    image = {"path": str(file), "bytes": None}
    return {"image": image, "file_name": name, "label": label, "split": split, "group_id": name, "source": ""}


def split_name(text: str, place: str) -> str:
    """train, val, test or "" from any of their usual names."""
    if text and text.lower() not in SPLIT_NAMES:
        raise DataError(f"{place} has the split {text!r}. Allowed: {', '.join(SPLITS)}, or nothing.")
    return SPLIT_NAMES.get(text.lower(), "")


def box_values(line: Mapping[str, str], place: str) -> dict[str, float | None]:
    """The four box fractions, None where empty."""
    try:
        return {name: float(line[name]) if (line[name] or "").strip() else None for name in BOX_COLUMNS}
    except ValueError as error:
        raise DataError(f"{place} has a box value that is no number: {error}.") from error


def class_folder_rows(folder: Path) -> list[dict]:
    """The rows of class folders, or of train/val/test folders that hold class folders."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    split_folders = [path for path in inner if path.name.lower() in SPLIT_NAMES]
    if split_folders and len(split_folders) != len(inner):
        others = ", ".join(path.name for path in inner if path not in split_folders)
        raise DataError(f"{folder} mixes split folders with others ({others}). Use one kind, or a metadata.csv.")
    rows = []
    for top in split_folders or [folder]:
        split = SPLIT_NAMES[top.name.lower()] if split_folders else ""
        for class_folder in sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith(".")):
            for file in sorted(class_folder.rglob("*")):
                hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
                if file.is_file() and not hidden and file.suffix.lower() not in IGNORED_SUFFIXES:
                    name = file.relative_to(folder).as_posix()
                    rows.append(base_row(file.resolve(), name, class_folder.name, split))
    return rows


def hub_rows(source: str, revision: str | None) -> Dataset:
    """A Hub data set's rows, labels as text. Raises DataError when it cannot be loaded or lacks columns."""
    try:
        loaded = load_dataset(source, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise DataError(
            f"The Hub data set {source!r} could not be loaded: {first} Check its name and the network."
        ) from error
    if not isinstance(loaded, DatasetDict):
        loaded = DatasetDict({"train": loaded})
    parts = []
    for name, part in loaded.items():
        missing = [column for column in ("image", "label") if column not in part.column_names]
        if missing:
            raise DataError(f"{source} lacks the column {', '.join(missing)}; found: {', '.join(part.column_names)}.")
        feature = part.features["label"]
        names = feature.names if isinstance(feature, ClassLabel) else None
        values = [names[value] if names else str(value) for value in part["label"]]
        split = SPLIT_NAMES.get(name, "") if len(loaded) > 1 else ""
        count = len(part)
        columns = {
            "file_name": part["file_name"]
            if "file_name" in part.column_names
            else [f"{name}/{i}" for i in range(count)],
            "split": part["split"] if "split" in part.column_names else [split] * count,
        }
        columns["group_id"] = part["group_id"] if "group_id" in part.column_names else columns["file_name"]
        columns["source"] = part["source"] if "source" in part.column_names else [""] * count
        part = part.select_columns(["image"]).cast_column("image", Image(decode=False))
        part = part.add_column("label", values)
        for column, content in columns.items():
            part = part.add_column(column, [str(value) for value in content])
        parts.append(part)
    return concatenate_datasets(parts)


def with_labels(dataset: Dataset, labels: Sequence[str] | None, source: str) -> Dataset:
    """The data set with its text labels as a ClassLabel in the declared order. Raises DataError on a mismatch."""
    found = sorted(set(dataset["label"]))
    if labels is not None:
        unknown, absent = sorted(set(found) - set(labels)), [label for label in labels if label not in found]
        if unknown or absent:
            raise DataError(
                f"The labels of {source} do not match the declared ones ({', '.join(labels)}): "
                f"not declared: {', '.join(unknown) or 'none'}; declared but without images: {', '.join(absent) or 'none'}."
            )
    names = list(labels) if labels is not None else found
    if len(names) < 2:
        raise DataError(f"{source} has the one label {', '.join(names)}; a classifier needs two or more.")
    numbers = {name: index for index, name in enumerate(names)}
    values = [numbers[label] for label in dataset["label"]]
    return dataset.remove_columns("label").add_column("label", values, feature=ClassLabel(names=names))


def split_data(dataset: Dataset, seed: int = 0, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)) -> Dataset:
    """The data set with every row in train, val or test: given splits are kept, missing ones are made.

    Whole groups move together, classes stay balanced, the same seed gives the same split. Raises DataError when a class
    would be missing from a side, or when only some rows have a split.
    """
    splits = np.array(dataset["split"], dtype=object)
    given = {name for name in splits if name}
    if given and "" in splits:
        raise DataError(
            f"{int((splits == '').sum())} of {len(splits)} rows have no split and the others have; give all or none."
        )
    labels, groups = np.array(dataset["label"]), np.array(dataset["group_id"], dtype=object)
    if not given:
        splits[:] = "train"
        move(splits, labels, groups, "test", fractions[2], seed)
        move(splits, labels, groups, "val", fractions[1] / (fractions[0] + fractions[1]), seed)
    else:
        if "train" not in given:
            raise DataError(f"The splits given are {', '.join(sorted(given))}; train is missing.")
        if "test" not in given:
            move(splits, labels, groups, "test", fractions[2], seed)
        if "val" not in given:
            move(splits, labels, groups, "val", fractions[1] / (fractions[0] + fractions[1]), seed)
    names = dataset.features["label"].names
    for split in SPLITS:
        absent = [name for index, name in enumerate(names) if index not in labels[splits == split]]
        if absent:
            raise DataError(
                f"The {split} split has no image of {', '.join(absent)}. Every class needs images of at least three "
                "groups, or a split column that puts it in train, val and test."
            )
    return dataset.remove_columns("split").add_column("split", splits.tolist(), feature=Value("string"))


def move(splits: np.ndarray, labels: np.ndarray, groups: np.ndarray, to: str, fraction: float, seed: int) -> None:
    """Move about `fraction` of the training rows, whole groups, stratified by label, into split `to` (in place)."""
    train = np.flatnonzero(splits == "train")
    folds = max(2, round(1 / fraction))
    if len(set(groups[train])) < folds:
        raise DataError(f"{len(set(groups[train]))} groups are too few to make a {to} split of {fraction:.0%}.")
    # Rows sorted by group make the split independent of the order the files were listed in.
    order = train[np.lexsort((labels[train], groups[train].astype(str)))]
    folder = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    _, chosen = next(folder.split(np.zeros(len(order)), labels[order], groups[order].astype(str)))
    splits[order[chosen]] = to
