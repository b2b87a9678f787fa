"""Load a folder or Hub data set of labeled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, Features, Value
from PIL import Image as PILImage

from medssl.data.annotations import BOXES_FEATURE, add_annotations
from medssl.data.folders import folder_rows
from medssl.data.hub import hub_rows
from medssl.data.labels import in_label_order, with_labels
from medssl.data.masks import without_masks
from medssl.data.notes import notes_of, with_notes
from medssl.data.rows import BOX_COLUMNS, BOXES, COLUMNS, MASK_FILE
from medssl.data.table import find_table, table_rows
from medssl.data.tasks import Task, get_task
from medssl.errors import DataError, ImageError
from medssl.images.read import read_image
from medssl.text import printable

LESION_COLUMNS = {**dict.fromkeys(BOX_COLUMNS, Value("float32")), BOXES: BOXES_FEATURE, MASK_FILE: Value("string")}


def read_record(record: Mapping) -> PILImage.Image:
    """The RGB image of a data set's row, from its bytes where it carries them, else its path. Raises ImageError."""
    image = record["image"]
    # Bytes first: the path beside them is a bare name on somebody else's machine.
    if image["bytes"] is not None:
        return read_image(image["bytes"])
    if not image["path"]:
        raise ImageError("This row of the data set has no image. Remove it or give it one.")
    return read_image(image["path"])


def load_data(
    source: str | Path, labels: Sequence[str] | None = None, revision: str | None = None, all_present: bool = True
) -> Dataset:
    """Load a folder (metadata.csv or class folders) or a Hub data set as one flat data set, pixels not yet decoded.

    Columns: image (undecoded), file_name, label (ClassLabel in declared order, sorted when not declared), split (""
    where not given), group_id (each image its own where not given), source, and where given box_* (of a picture's first
    box), boxes (all of them; None: nobody looked, []: no lesion) and mask_file. With `all_present=False` not every
    declared label needs images. Raises DataError.
    """
    folder = Path(source)
    if folder.is_dir():
        dataset = load_folder(folder)
    elif folder.exists() or str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        what = "is a file, not a folder" if folder.is_file() else "does not exist"
        raise DataError(f"The data folder {str(source)!r} {what}. Give a folder of images or a Hub data set id.")
    else:
        dataset = hub_rows(str(source), revision)
    notes = notes_of(dataset)
    return with_notes(with_labels(dataset, labels, str(source), all_present), notes)


def load_folder(folder: Path) -> Dataset:
    """The rows of a folder, labels as text, with notes on how they were read. Raises DataError.

    Not by `load_dataset("imagefolder")`: tried with datasets 5.2, its class folders pass over DICOM files and files
    without an image suffix, and a `split` column in metadata.csv ends up in one split called train. The rows go
    straight into memory: paths only, so no pixels are copied and no cache can go stale when a file changes.
    """
    try:
        table = find_table(folder)
        rows, notes = table_rows(table) if table else folder_rows(folder)
        rows, about_masks = without_masks(rows)
        about_lesions = add_annotations(folder, rows)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}. Check its permissions.") from error
    if not rows:
        raise DataError(
            f"{folder} holds no images that have a label. Put images into one folder a class, or list them in a "
            "metadata.csv with the columns file_name,label."
        )
    given = {name: feature for name, feature in LESION_COLUMNS.items() if any(name in row for row in rows)}
    try:
        dataset = Dataset.from_list(rows, features=Features({**COLUMNS, **given}))
    except UnicodeEncodeError as error:
        raise DataError(
            f"{folder} holds a file or folder whose name is not UTF-8 ({printable(str(error.object))}). Rename it."
        ) from error
    return with_notes(dataset, [*notes, *about_masks, *about_lesions])


def open_data(
    data: str | Path, name: str, labels: Sequence[str] | None, revision: str | None = None
) -> tuple[Dataset, Task]:
    """The data set, of a revision on the Hub, with its labels in the task's order, and the task. Raises DataError."""
    dataset = load_data(data, labels=labels, revision=revision)
    task = get_task(name, dataset.features["label"].names)
    if labels is not None:
        return dataset, replace(task, labels=tuple(dataset.features["label"].names))
    return in_label_order(dataset, task.labels, str(data)), task
