"""Load a folder or Hub data set of labelled images, and split it by group."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetsError
from PIL import Image as PILImage
from sklearn.model_selection import StratifiedGroupKFold

from medssl.errors import DataError, ImageError
from medssl.images.read import read_image

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
BOX_COLUMNS = ("box_left", "box_top", "box_right", "box_bottom")
IGNORED_SUFFIXES = {".csv", ".json", ".jsonl", ".txt", ".md", ".parquet", ".db", ".ini", ".lock"}
# What pandas and its kin write, or read, for "no value".
NO_VALUE = {"", "nan", "<na>", "n/a", "null"}
TEXT = Value("string")
COLUMNS = {
    "image": Image(decode=False),
    "file_name": TEXT,
    "label": TEXT,
    "split": TEXT,
    "group_id": TEXT,
    "source": TEXT,
}


def read_record(record: Mapping) -> PILImage.Image:
    """The RGB image of a data set's row, from its bytes where it carries them, else its path. Raises ImageError."""
    image = record["image"]
    # Bytes first: the path beside them is a bare name on somebody else's machine.
    if image["bytes"] is not None:
        return read_image(image["bytes"])
    if not image["path"]:
        raise ImageError("This row of the data set has no image. Remove it or give it one.")
    return read_image(image["path"])


def load_data(source: str | Path, labels: Sequence[str] | None = None, revision: str | None = None) -> Dataset:
    """Load a folder (metadata.csv or class folders) or a Hub data set as one flat data set, pixels not yet decoded.

    Columns: image (undecoded), file_name, label (ClassLabel in declared order, sorted when not declared), split (""
    where not given), group_id (each image its own where not given), source, and box_* where given. Raises DataError.
    """
    folder = Path(source)
    if folder.is_dir():
        dataset = folder_rows(folder)
    elif folder.exists() or str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        what = "is a file, not a folder" if folder.is_file() else "does not exist"
        raise DataError(f"The data folder {str(source)!r} {what}. Give a folder of images or a Hub data set id.")
    else:
        dataset = hub_rows(str(source), revision)
    return with_labels(dataset, labels, str(source))


def folder_rows(folder: Path) -> Dataset:
    """The rows of a folder, labels as text.

    Not by `load_dataset("imagefolder")`: tried with datasets 5.2, its class folders pass over DICOM files and files
    without an image suffix, and a `split` column in metadata.csv ends up in one split called train. The rows go
    straight into memory: paths only, so no pixels are copied and no cache can go stale when a file changes.
    """
    metadata = folder / "metadata.csv"
    try:
        rows = metadata_rows(metadata) if metadata.is_file() else class_folder_rows(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}. Check its permissions.") from error
    if not rows:
        raise DataError(
            f"{folder} holds no images that have a label. Put images into one folder a class, or list them in a "
            "metadata.csv with the columns file_name,label."
        )
    boxes = {name: Value("float32") for name in BOX_COLUMNS if name in rows[0]}
    return Dataset.from_list(rows, features=Features({**COLUMNS, **boxes}))


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
    root, rows, seen = os.path.abspath(path.parent), [], set()
    boxes = all(name in columns for name in BOX_COLUMNS)
    for number, line in enumerate(lines, start=2):
        name, label = (line["file_name"] or "").strip(), (line["label"] or "").strip()
        place = f"{path.name} line {number}"
        if name.lower() in NO_VALUE or label.lower() in NO_VALUE:
            empty = "file_name" if name.lower() in NO_VALUE else "label"
            raise DataError(f"{place} has no {empty}. Fill it in or remove the line.")
        # By the words of the path, not by where a link leads: Hub snapshots are folders of links to elsewhere.
        file = os.path.normpath(os.path.join(root, name))
        if not file.startswith(os.path.join(root, "")):
            raise DataError(f"{place} names {name!r}, which lies outside the folder. Use paths inside it.")
        if "\0" in name or not os.path.isfile(file):
            raise DataError(f"{place} names {name!r}, which does not exist. Put the file there or remove the line.")
        if file in seen:
            raise DataError(f"{place} names {name!r} a second time. Remove one of the lines.")
        seen.add(file)
        row = base_row(file, name, label, split_name((line.get("split") or "").strip(), place))
        row["group_id"] = (line.get("group_id") or "").strip() or name
        row["source"] = (line.get("source") or "").strip()
        if boxes:
            row.update(box_values(line, place))
        rows.append(row)
    return rows


def base_row(file: str | Path, name: str, label: str, split: str) -> dict:
    """One row with the columns that every data set has."""
    image = {"path": str(file), "bytes": None}
    return {"image": image, "file_name": name, "label": label, "split": split, "group_id": name, "source": ""}


def split_name(text: str, place: str) -> str:
    """train, val, test or "" from any of their usual names."""
    if text and text.lower() not in SPLIT_NAMES:
        raise DataError(f"{place} has the split {text!r}. Allowed: {', '.join(SPLITS)}, or nothing.")
    return SPLIT_NAMES.get(text.lower(), "")


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


def class_folder_rows(folder: Path) -> list[dict]:
    """The rows of class folders, or of train/val/test folders that hold class folders."""
    for name in ("metadata.jsonl", "metadata.parquet"):
        if (folder / name).exists():
            raise DataError(f"{folder} has a {name}, which is not read. Save it as metadata.csv with file_name,label.")
    inner = class_folders(folder)
    split_folders = [path for path in inner if path.name.lower() in SPLIT_NAMES]
    if split_folders and len(split_folders) != len(inner):
        others = ", ".join(path.name for path in inner if path not in split_folders)
        raise DataError(f"{folder} mixes split folders with others ({others}). Use one kind, or a metadata.csv.")
    rows = []
    for top in split_folders or [folder]:
        split = SPLIT_NAMES[top.name.lower()] if split_folders else ""
        for class_folder in class_folders(top):
            for file in sorted(class_folder.rglob("*")):
                hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
                if file.is_file() and not hidden and file.suffix.lower() not in IGNORED_SUFFIXES:
                    name = file.relative_to(folder).as_posix()
                    rows.append(base_row(os.path.abspath(file), name, class_folder.name, split))
    return rows


def class_folders(folder: Path) -> list[Path]:
    """The sorted folders inside a folder, without hidden ones and what macOS packs beside them."""
    inner = (path for path in folder.iterdir() if path.is_dir())
    return sorted(path for path in inner if not path.name.startswith(".") and path.name != "__MACOSX")


def hub_rows(source: str, revision: str | None) -> Dataset:
    """A Hub data set's rows, labels as text. Raises DataError when it cannot be loaded or lacks columns."""
    try:
        loaded = load_dataset(source, revision=revision)
    except (OSError, ValueError, RuntimeError, DatasetsError, httpx.HTTPError) as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
        raise DataError(
            f"{source!r} is no folder here, and the Hub data set of that name could not be loaded: {first}. "
            "Check the name, the revision and the network."
        ) from error
    parts = loaded if isinstance(loaded, DatasetDict) else {"train": loaded}
    return concatenate_datasets([hub_part(part, name, len(parts) > 1, source) for name, part in parts.items()])


def hub_part(part: Dataset, name: str, several: bool, source: str) -> Dataset:
    """One split of a Hub data set in our columns, labels as text. Raises DataError."""
    columns, count = part.column_names, len(part)
    missing = [column for column in ("image", "label") if column not in columns]
    if missing:
        raise DataError(f"{source} lacks the column {', '.join(missing)}; found: {', '.join(columns)}.")
    if not isinstance(part.features["image"], Image):
        raise DataError(f"The column image of {source} holds {part.features['image']}, not images.")
    feature, values = part.features["label"], part["label"][:]
    if isinstance(feature, ClassLabel):
        # -1 is what datasets writes for "not labelled", as in a hidden test split.
        values = [feature.names[value] if value is not None and value >= 0 else None for value in values]
    without = [index for index, value in enumerate(values) if value is None or str(value).strip().lower() in NO_VALUE]
    if without:
        raise DataError(
            f"{len(without)} of {count} rows of {source}, split {name}, have no label (first: row {without[0]}). "
            "Label them or leave them out."
        )

    def texts(column: str, default: Sequence[str]) -> list[str]:
        if column not in columns:
            return list(default)
        return [str(value) if value is not None else default[i] for i, value in enumerate(part[column][:])]

    names = texts("file_name", [f"{name}/{index}" for index in range(count)])
    split = SPLIT_NAMES.get(name.lower(), "") if several else ""
    made = {
        "file_name": names,
        "label": [str(value) for value in values],
        "split": [split_name(text, f"{source}, {name}/{i}") for i, text in enumerate(texts("split", [split] * count))],
        "group_id": texts("group_id", names),
        "source": texts("source", [""] * count),
    }
    boxes = [column for column in BOX_COLUMNS if column in columns] if set(BOX_COLUMNS) <= set(columns) else []
    kept = part.select_columns(["image", *boxes]).cast_column("image", Image(decode=False))
    for column in boxes:
        kept = kept.cast_column(column, Value("float32"))
    for column, content in made.items():
        kept = kept.add_column(column, content, feature=TEXT)
    return kept


def with_labels(dataset: Dataset, labels: Sequence[str] | None, source: str) -> Dataset:
    """The data set with its text labels as a ClassLabel in the declared order. Raises DataError on a mismatch."""
    texts = dataset["label"][:]
    found = sorted(set(texts))
    if labels is not None:
        if isinstance(labels, str) or len(set(labels)) != len(labels):
            raise DataError(f"The declared labels {labels!r} are not a list of different names.")
        unknown, absent = sorted(set(found) - set(labels)), [label for label in labels if label not in found]
        if unknown or absent:
            raise DataError(
                f"The labels of {source} do not match the declared ones ({', '.join(labels)}): "
                f"not declared: {', '.join(unknown) or 'none'}; "
                f"declared but without images: {', '.join(absent) or 'none'}. Declare what the data has."
            )
    names = list(labels) if labels is not None else found
    if len(names) < 2:
        raise DataError(f"{source} has one label only ({', '.join(names)}); a classifier needs two or more.")
    numbers = {name: index for index, name in enumerate(names)}
    values = [numbers[label] for label in texts]
    return dataset.remove_columns("label").add_column("label", values, feature=ClassLabel(names=names))


def in_label_order(dataset: Dataset, labels: Sequence[str], source: str) -> Dataset:
    """The data set with its classes in the declared order. Raises DataError on a mismatch."""
    names = dataset.features["label"].names
    if names == list(labels):
        return dataset
    texts = [names[value] for value in dataset["label"][:]]
    return with_labels(dataset.remove_columns("label").add_column("label", texts, feature=TEXT), labels, source)


def split_data(dataset: Dataset, seed: int = 0, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)) -> Dataset:
    """The data set with every row in train, val or test: given splits are kept, missing ones are made.

    Whole groups move together, classes stay balanced, the same seed gives the same split. Raises DataError when a class
    would be missing from a side, or when only some rows have a split.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"The fractions {tuple(fractions)} must be three numbers above 0 that sum to 1.")
    splits = np.array(dataset["split"][:], dtype=object)
    labels, groups = np.array(dataset["label"][:]), np.array(dataset["group_id"][:], dtype=str)
    given = {name for name in splits if name}
    if given and "" in splits:
        raise DataError(
            f"{int((splits == '').sum())} of {len(splits)} rows have no split and the others have; give all or none."
        )
    if given and "train" not in given:
        raise DataError(f"The splits given are {', '.join(sorted(given))}; train is missing. Name it, or give none.")
    if not given:
        splits[:] = "train"
    shares = {name: share for name, share in zip(SPLITS, fractions, strict=True) if name not in given - {"train"}}
    for name in ("test", "val"):
        if name not in given:
            # What is still in train has to last for all splits that are yet to be made.
            move(splits, labels, groups, name, shares[name] / sum(shares.values()), seed)
            del shares[name]
    names = dataset.features["label"].names
    for split in SPLITS:
        absent = [name for index, name in enumerate(names) if index not in labels[splits == split]]
        if absent:
            raise DataError(
                f"The {split} split has no image of {', '.join(absent)}. Every class needs images of at least three "
                "groups, or a split column that puts it in train, val and test."
            )
    return dataset.remove_columns("split").add_column("split", splits.tolist(), feature=TEXT)


def move(splits: np.ndarray, labels: np.ndarray, groups: np.ndarray, to: str, fraction: float, seed: int) -> None:
    """Move about `fraction` of the training rows, whole groups, stratified by label, into split `to` (in place)."""
    train = np.flatnonzero(splits == "train")
    folds = max(2, round(1 / fraction))
    # Rows sorted by group make the split independent of the order the files were listed in.
    order = train[np.lexsort((labels[train], groups[train]))]
    y = labels[order]
    counts = np.bincount(y)
    if len(set(groups[train])) < folds or counts.max() < folds:
        raise DataError(
            f"{len(set(groups[train]))} groups of {len(train)} images are too few to make a {to} split of "
            f"{fraction:.0%}. Add images, or give a split column."
        )
    folder = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds: judged below
        sides = [fold for _, fold in folder.split(y, y, groups[order])]

    def cost(fold: np.ndarray) -> tuple[int, float]:
        """Classes that this fold would take or leave nothing of, then how far it is from the fraction, per class."""
        taken = np.bincount(y[fold], minlength=len(counts))
        lost = int(((taken == 0) | (taken == counts))[counts > 0].sum())
        return lost, float(np.abs(taken / np.maximum(counts, 1) - fraction).sum())

    # Large groups make folds uneven; the best of them, and not the first, is the split.
    splits[order[min(sides, key=cost)]] = to
