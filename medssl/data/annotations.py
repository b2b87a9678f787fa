"""Where the lesions of a picture lie: boxes and masks from metadata.csv, boxes.csv and COCO JSON, all as fractions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import List, Value
from PIL import Image
from pydantic import FiniteFloat, TypeAdapter
from scipy.ndimage import find_objects, label
from typing_extensions import TypedDict

from medssl.data.masks import NEAR, two_values
from medssl.data.rows import BOX_COLUMNS, BOXES, MASK_FILE, box_values
from medssl.data.table import read_lines
from medssl.errors import DataError, ImageError
from medssl.images.preprocess import Preprocess
from medssl.images.read import read_image
from medssl.shapes import check_shape, read_json

# None: not annotated. An empty list: looked at, and there is no lesion.
BOXES_FEATURE = List(List(Value("float32"), length=4))
BOXES_FILE = "boxes.csv"
COCO_NAME = re.compile(r"(_?annotations(\.coco)?|coco|instances\w*|.+\.coco)\.json", re.I)
OVERSHOOT = 1.0  # pixels that a COCO box may lie outside, as tools round
Box = tuple[float, float, float, float]


class CocoImage(TypedDict):
    """A picture of a COCO file."""

    id: int | str
    file_name: str
    width: FiniteFloat
    height: FiniteFloat


class CocoAnnotation(TypedDict):
    """A lesion of a COCO file: left, top, width, height in pixels."""

    image_id: int | str
    bbox: list[FiniteFloat]


class CocoFile(TypedDict):
    """What is read of a COCO file."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]


COCO = TypeAdapter(CocoFile)


def is_annotation_file(path: Path) -> bool:
    """Whether a file is, by its name, one of annotations."""
    return path.name.lower() == BOXES_FILE or COCO_NAME.fullmatch(path.name) is not None


def add_annotations(folder: Path, rows: Sequence[dict]) -> list[str]:
    """Give every row its `boxes`, where any picture of the folder has some. Returns what is to be said of them.

    From the row's own box and mask (see `table.table_rows`), boxes.csv, and COCO files in the folder or in folders of
    it. Raises DataError for an annotation that cannot be, and for a picture that is annotated in two places.
    """
    by_name = {row["file_name"]: row for row in rows}
    found: dict[str, list[Box]] = {}
    notes: list[str] = []
    said: list[str]
    for row in rows:
        boxes = mask_boxes(row[MASK_FILE]) if row.get(MASK_FILE) else row.pop(BOXES, None)
        if boxes is not None:
            found[row["file_name"]] = boxes
    for path in annotation_files(folder):
        if path.name.lower() == BOXES_FILE:
            more, said = read_boxes_file(path, by_name), []
        else:
            more, said = coco_boxes(path, folder, list(by_name))
        twice = sorted(set(more) & set(found))
        if twice:
            raise DataError(
                f"{twice[0]!r} is annotated in {path.name} and in another place too ({len(twice)} pictures are). Keep "
                "one of them."
            )
        found.update(more)
        notes += said
    if found:
        for row in rows:
            row[BOXES] = found.get(row["file_name"])
    return notes


def annotation_files(folder: Path) -> list[Path]:
    """The boxes.csv of a folder, and the COCO files in it and in the folders of it."""
    every = [
        path for place in (folder, *sorted(folder.iterdir())) if place.is_dir() for path in sorted(place.iterdir())
    ]
    return [
        path
        for path in every
        if path.is_file() and is_annotation_file(path) and (path.suffix == ".json" or path.parent == folder)
    ]


def read_boxes_file(path: Path, known: Mapping[str, dict]) -> dict[str, list[Box]]:
    """The boxes of a boxes.csv by the pictures' names; a line without any says that there is no lesion.

    Raises DataError for a missing column, a picture that is not `known`, or a box that cannot be.
    """
    header, lines = read_lines(path)
    cells = [cell.strip() for cell in header]
    needed = ("file_name", *BOX_COLUMNS)
    missing = [name for name in needed if name not in cells]
    if missing:
        raise DataError(f"{path.name} lacks the column {', '.join(missing)}. It needs {', '.join(needed)}.")
    found: dict[str, list[Box]] = {}
    for number, line in enumerate(lines, start=2):
        if not any(cell.strip() for cell in line):
            continue
        values, place = dict(zip(cells, line, strict=True)), f"{path.name} line {number}"
        name = values["file_name"].strip()
        if name not in known:
            raise DataError(f"{place} names {name!r}, which is none of the pictures. Mend the name or remove the line.")
        box = box_values(values, place)
        boxes = found.setdefault(name, [])
        if box[BOX_COLUMNS[0]] is None:
            if boxes:
                raise DataError(f"{place} has no box, and another line has one of {name!r}. Remove one of them.")
        else:
            left, top, right, bottom = (float(box[column] or 0.0) for column in BOX_COLUMNS)
            boxes.append((left, top, right, bottom))
    return found


def coco_boxes(path: Path, folder: Path, names: Sequence[str]) -> tuple[dict[str, list[Box]], list[str]]:
    """The boxes of a COCO file by the pictures' names, and what is to be said of it.

    Pictures without a box are not annotated: exports list them whether anybody looked or not. Raises DataError.
    """
    place = path.relative_to(folder).as_posix()
    values = read_json(path, place, DataError)
    if not {"images", "annotations"} <= set(values):
        return {}, [f"Not used: {place}, which has no images and annotations as COCO files do."]
    check_shape(COCO, values, place, DataError)
    pictures = {image["id"]: image for image in values["images"]}
    named = names_of(pictures, path.parent.relative_to(folder).as_posix(), names)
    found: dict[str, list[Box]] = {}
    elsewhere = 0
    for number, annotation in enumerate(values["annotations"]):
        if annotation["image_id"] not in pictures:
            raise DataError(f"{place}: annotation {number} is of the picture {annotation['image_id']!r}, not listed.")
        box = coco_box(annotation["bbox"], pictures[annotation["image_id"]], f"{place}: annotation {number}")
        name = named[annotation["image_id"]]
        if name is None:
            elsewhere += 1
        else:
            found.setdefault(name, []).append(box)
    said = [f"{place}: {elsewhere} boxes are of pictures that are not here."] if elsewhere else []
    if any("segmentation" in annotation and annotation["segmentation"] for annotation in values["annotations"]):
        said.append(f"{place}: of each lesion the box is read, the outline is not.")
    return found, said


def names_of(pictures: Mapping, inside: str, names: Sequence[str]) -> dict:
    """Which of `names` each COCO picture is, None where it is none: by its path, else by its file's own name."""
    by_own: dict[str, list[str]] = {}
    for name in names:
        by_own.setdefault(name.rsplit("/", 1)[-1], []).append(name)
    known, found = set(names), {}
    paths = {number: image["file_name"].replace("\\", "/").removeprefix("./") for number, image in pictures.items()}
    owners = Counter(path.rsplit("/", 1)[-1] for path in paths.values())
    for number, path in paths.items():
        full = path if inside == "." else f"{inside}/{path}"
        own = path.rsplit("/", 1)[-1]
        alike = by_own.get(own, [])
        only = alike[0] if len(alike) == 1 and owners[own] == 1 else None  # 001.png of two patients is neither's
        found[number] = next((name for name in (full, path) if name in known), only)
    return found


def coco_box(bbox: Sequence[float], image: CocoImage, place: str) -> Box:
    """A COCO box as fractions. Raises DataError for one that is empty or lies outside its picture."""
    width, height = image["width"], image["height"]
    if len(bbox) == 4 and width > 0 and height > 0 and min(bbox[2:]) > 0:
        left, top, right, bottom = bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]
        slack = OVERSHOOT
        if min(left, top) >= -slack and right <= width + slack and bottom <= height + slack:
            box = max(0.0, left / width), max(0.0, top / height), min(1.0, right / width), min(1.0, bottom / height)
            if box[0] < box[2] and box[1] < box[3]:
                return box
    raise DataError(
        f"{place} has the bbox {list(bbox)} in a picture of {width:g} x {height:g} pixels. Allowed: left, top, width, "
        "height in pixels, inside the picture, width and height above 0."
    )


def read_mask(path: str) -> np.ndarray:
    """A mask file as bool `[H, W]`, True in the lesion. Raises DataError where it cannot be read or is no mask."""
    try:
        gray = np.asarray(read_image(path).convert("L"))
    except ImageError as error:
        raise DataError(f"The mask {path} cannot be read: {error}") from error
    if not two_values(gray):
        raise DataError(f"The mask {path} holds more than two values. Save it as black, and white in the lesion.")
    low, high = int(gray.min()), int(gray.max())
    if high == low:  # a lesion everywhere, or, where it is black, nowhere
        return np.full(gray.shape, high > 0)
    # Labels from 1 on, as segmentation tools write them, lie too near to each other to be a compression's traces.
    return gray > (low if high - low <= NEAR else (low + high) / 2)


def mask_boxes(path: str) -> list[Box]:
    """A box, in fractions, around each connected part of a mask. Raises DataError."""
    mask = read_mask(path)
    height, width = mask.shape
    parts = find_objects(label(mask, np.ones((3, 3)))[0])
    return [(x.start / width, y.start / height, x.stop / width, y.stop / height) for y, x in parts]


def is_annotated(record: Mapping) -> bool:
    """Whether somebody said of a data set's row where its lesions are, or that there are none."""
    return record.get(BOXES) is not None


def lesion_area(record: Mapping, height: int, width: int) -> np.ndarray:
    """How much of each of `height` x `width` cells over the whole picture is lesion: float32 `[height, width]`, 0..1.

    Of the row's mask where it has one, else of its boxes. Raises DataError for a mask that cannot be read.
    """
    if record.get(MASK_FILE):
        mask = Image.fromarray(read_mask(record[MASK_FILE]).astype(np.float32))
        return np.asarray(mask.resize((width, height), Image.Resampling.BOX), np.float32)
    area = np.zeros((height, width), np.float32)
    for left, top, right, bottom in record[BOXES]:
        area = np.maximum(area, np.outer(cells_inside(top, bottom, height), cells_inside(left, right, width)))
    return area


def cells_inside(low: float, high: float, count: int) -> np.ndarray:
    """How much of each of `count` equal cells of 0..1 lies between two fractions: float32 `[count]`."""
    edges = np.arange(count + 1) / count
    inside = np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])
    return (np.clip(inside, 0, None) * count).astype(np.float32)


def patch_area(record: Mapping, grid: tuple[int, int], preprocess: Preprocess, size: tuple[int, int]) -> np.ndarray:
    """How much of each patch of the model's frame is lesion: float32 `grid`, 0..1.

    `size` is the picture's own (width, height), which decides where padding lies. Raises DataError.
    """
    height, width = preprocess.size
    left, top, right, bottom = preprocess.content_box(*size)
    frame = np.zeros((height, width), np.float32)
    frame[top:bottom, left:right] = lesion_area(record, bottom - top, right - left)
    return np.asarray(Image.fromarray(frame).resize(grid[::-1], Image.Resampling.BOX), np.float32)
