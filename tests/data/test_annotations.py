"""Boxes and masks of lesions, from all the places where people write them."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from medssl.data.annotations import BOXES, is_annotated, lesion_area, patch_area
from medssl.data.hub import hub_boxes
from medssl.data.load import load_data
from medssl.data.notes import notes_of
from medssl.errors import DataError
from medssl.images.preprocess import Preprocess

BOX = ("box_left", "box_top", "box_right", "box_bottom")


@pytest.fixture
def folder(tmp_path):
    """Four pictures of 40 x 20 pixels, two of each label, no annotations."""
    for index in range(4):
        Image.fromarray(np.full((20, 40), 60 * index, np.uint8)).save(tmp_path / f"{index}.png")
    write(tmp_path, [{"file_name": f"{index}.png", "label": "ab"[index % 2]} for index in range(4)])
    return tmp_path


def write(folder, rows, name="metadata.csv"):
    with open(folder / name, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def line(name, label, box=("", "", "", "")):
    return {"file_name": name, "label": label, **dict(zip(BOX, box, strict=True))}


def write_coco(folder, boxes, name="annotations.json", **more):
    images = [{"id": number, "file_name": file, "width": 40, "height": 20} for number, file in enumerate(boxes)]
    lesions = [
        {"id": 0, "image_id": number, "category_id": 1, "bbox": list(box), "segmentation": []}
        for number, several in enumerate(boxes.values())
        for box in several
    ]
    text = json.dumps({"images": images, "annotations": lesions, "categories": [], **more})
    (folder / name).write_text(text, encoding="utf-8")


def test_several_lines_of_one_picture_are_its_boxes(folder):
    boxes = [(0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.75, 1)]
    write(folder, [line("0.png", "a", boxes[0]), line("1.png", "b"), line("0.png", "a", boxes[1])])
    data = load_data(folder)
    assert data["file_name"][:] == ["0.png", "1.png"]
    assert np.allclose(data[0][BOXES], boxes) and data[1][BOXES] is None
    assert data[0]["box_left"] == pytest.approx(0.1), "box_* are those of the first box"
    assert not notes_of(data), "what is used needs no word"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (line("0.png", "a"), "second time"),
        (line("0.png", "b", (0.1, 0.1, 0.2, 0.2)), "different values of label"),
        (line("0.png", "a", (0.3, 0.1, 0.2, 0.2)), "left below right"),
    ],
)
def test_lines_of_one_picture_that_do_not_fit_are_refused(folder, more, said):
    write(folder, [line("0.png", "a", (0.1, 0.1, 0.5, 0.5)), line("1.png", "b"), more])
    with pytest.raises(DataError, match=said):
        load_data(folder)


def test_no_annotation_no_column(folder):
    assert BOXES not in load_data(folder).column_names


def test_boxes_file(folder):
    boxes = [(0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.75, 1)]
    lines = [line("2.png", "", box) for box in boxes] + [line("3.png", "")]
    write(folder, [{name: cells[name] for name in ("file_name", *BOX)} for cells in lines], "boxes.csv")
    data = load_data(folder)
    assert np.allclose(data[2][BOXES], boxes) and data[3][BOXES] == [], "an empty line says: no lesion"
    assert [is_annotated(row) for row in data] == [False, False, True, True]
    assert "box_left" not in data.column_names


def test_a_boxes_file_beside_class_folders_is_read(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / label / "x.png")
    cells = dict(zip(BOX, (0, 0, 0.5, 0.5), strict=True))
    write(tmp_path, [{"file_name": "b/x.png", **cells}], "boxes.csv")
    data = load_data(tmp_path)
    assert data[0][BOXES] is None and data[1][BOXES] == [[0, 0, 0.5, 0.5]]
    assert not any("boxes.csv" in note or ".csv" in note for note in notes_of(data)), "it is used, not left aside"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([("gone.png", 0, 0, 1, 1)], "gone.png.*none of the pictures"),
        ([("0.png", 0, 0, 10, 10)], "boxes.csv line 2.*fractions"),
        ([("0.png", 0, 0, 1, 1), ("0.png", "", "", "", "")], "boxes.csv line 3 has no box"),
    ],
)
def test_a_bad_boxes_file_is_refused(folder, lines, said):
    write(folder, [dict(zip(("file_name", *BOX), cells, strict=True)) for cells in lines], "boxes.csv")
    with pytest.raises(DataError, match=said):
        load_data(folder)


def test_a_boxes_file_without_a_column_is_refused(folder):
    write(folder, [{"file_name": "0.png", "left": 0}], "boxes.csv")
    with pytest.raises(DataError, match="boxes.csv lacks the column box_left"):
        load_data(folder)


def test_coco_boxes_become_fractions(folder):
    write_coco(folder, {"0.png": [(4, 5, 8, 10)], "1.png": [], "elsewhere.png": [(0, 0, 1, 1)]})
    data = load_data(folder)
    assert np.allclose(data[0][BOXES], [(0.1, 0.25, 0.3, 0.75)])
    assert data[1][BOXES] is None, "an export lists a picture whether anybody looked or not"
    assert any("1 boxes are of pictures that are not here" in note for note in notes_of(data))


def test_coco_files_of_split_folders_and_other_json(tmp_path):
    for split in ("train", "valid"):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            Image.new("L", (40, 20)).save(tmp_path / split / label / f"{split}-{label}.png")
    write_coco(tmp_path / "train", {"a/train-a.png": [(0, 0, 40, 20)]}, "_annotations.coco.json")
    (tmp_path / "annotations.json").write_text('{"who": "nobody"}')
    data = load_data(tmp_path)
    assert [row["file_name"] for row in data if row[BOXES]] == ["train/a/train-a.png"]
    assert any("Not used: annotations.json" in note for note in notes_of(data))


@pytest.mark.parametrize("box", [(0, 0, 50, 5), (5, 5, 0, 4), (-9, 0, 20, 5), (1, 2, 3)])
def test_a_coco_box_that_cannot_be_is_refused(folder, box):
    write_coco(folder, {"0.png": [box]})
    with pytest.raises(DataError, match=r"annotations.json: annotation 0 has the bbox .* 40 x 20 pixels"):
        load_data(folder)


def test_a_damaged_coco_file_names_its_field(folder):
    write_coco(folder, {"0.png": [(0, 0, 4, 4)]}, images=[{"id": 0}])
    with pytest.raises(DataError, match="annotations.json does not fit: images.0.file_name"):
        load_data(folder)


def mask_folder(folder, values):
    Image.fromarray(values).save(folder / "m.png")
    write(
        folder, [{"file_name": f"{i}.png", "label": "ab"[i % 2], "mask_file": "" if i else "m.png"} for i in range(4)]
    )


@pytest.mark.parametrize("high", [1, 3, 255])
def test_a_mask_gives_a_box_to_each_part_and_the_area_itself(folder, high):
    mask = np.zeros((20, 40), np.uint8)
    mask[2:4, 10:14] = high
    mask[10:20, 30:40] = high
    mask[15, 35] = 0
    mask_folder(folder, mask)
    data = load_data(folder)
    assert np.allclose(data[0][BOXES], [(0.25, 0.1, 0.35, 0.2), (0.75, 0.5, 1, 1)])
    assert np.allclose(lesion_area(data[0], 20, 40), mask > 0)
    assert np.allclose(lesion_area(data[0], 2, 4), [[0, 0.08, 0, 0], [0, 0, 0, 0.99]], atol=1e-6)
    assert data[1][BOXES] is None


def test_an_empty_mask_says_that_there_is_no_lesion(folder):
    mask_folder(folder, np.zeros((20, 40), np.uint8))
    assert load_data(folder)[0][BOXES] == []


def test_a_mask_of_many_values_and_one_outside_are_refused(folder):
    mask_folder(folder, np.arange(800, dtype=np.uint8).reshape(20, 40))
    with pytest.raises(DataError, match="more than two values"):
        load_data(folder)
    rows = [{"file_name": f"{i}.png", "label": "ab"[i % 2], "mask_file": "../m.png"} for i in range(2)]
    write(folder, rows)
    with pytest.raises(DataError, match="outside the folder"):
        load_data(folder)


def test_a_picture_annotated_twice_is_refused(folder):
    mask_folder(folder, np.zeros((20, 40), np.uint8))
    write(folder, [dict(zip(("file_name", *BOX), ("0.png", 0, 0, 1, 1), strict=True))], "boxes.csv")
    with pytest.raises(DataError, match=r"0.png.*boxes.csv and in another place"):
        load_data(folder)


def test_the_area_of_boxes_is_exact_and_their_union_counts_once():
    row = {BOXES: [(0.25, 0, 0.5, 1), (0.25, 0.5, 0.625, 1)]}
    assert np.allclose(lesion_area(row, 2, 4), [[0, 1, 0, 0], [0, 1, 0.5, 0]])


def test_padding_is_no_lesion():
    area = patch_area({BOXES: [(0, 0, 1, 1)]}, (4, 4), Preprocess((56, 56), fit="pad"), (40, 20))
    assert np.allclose(area, [[0] * 4, [1] * 4, [1] * 4, [0] * 4])
    assert np.allclose(patch_area({BOXES: [(0, 0, 1, 1)]}, (4, 4), Preprocess((56, 56)), (40, 20)), 1)


def test_a_bare_name_that_two_coco_pictures_have_is_neithers(tmp_path):
    (tmp_path / "glioma").mkdir()
    Image.new("L", (40, 20)).save(tmp_path / "glioma" / "001.png")
    Image.new("L", (40, 20)).save(tmp_path / "glioma" / "002.png")
    write(tmp_path, [{"file_name": f"glioma/00{n}.png", "label": label} for n, label in ((1, "a"), (2, "b"))])
    write_coco(tmp_path, {"p1/001.png": [(1, 1, 8, 8)], "p2/001.png": [(9, 9, 8, 8)], "export/002.png": [(2, 2, 4, 4)]})
    dataset = load_data(tmp_path)
    assert [bool(boxes) for boxes in dataset[BOXES][:]] == [False, True]
    assert any("2 boxes are of pictures that are not here" in note for note in notes_of(dataset))


def test_boxes_of_a_hub_data_set_are_held_to_what_those_of_a_folder_are():
    places = ["x/y, train/0", "x/y, train/1", "x/y, train/2"]
    nothing = [None, float("nan")]
    found = hub_boxes([[side, *nothing] for side in (0.1, 0.2, 0.4, 0.5)], places)
    assert [box["box_left"] for box in found] == [0.1, None, None]
    assert hub_boxes([[""], [""], [""], [""]], places[:1]) == [dict.fromkeys(BOX)]
    for sides in ([[30], [40], [120], [90]], [[0.5], [0.2], [0.1], [0.9]]):
        with pytest.raises(DataError, match="train/0 has the box"):
            hub_boxes(sides, places[:1])
