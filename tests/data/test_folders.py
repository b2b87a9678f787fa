"""Class folders as people have them: labels never come from split names, patients stay together, the rest is said."""

import numpy as np
import pytest
from PIL import Image

from medssl.data.folders import kind_of, split_of
from medssl.data.load import load_data
from medssl.data.notes import notes_of
from medssl.data.split import split_data
from medssl.errors import DataError


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def mask(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    gray = np.zeros((8, 10), np.uint8)
    gray[2 : 5 + value % 3, 3:7] = 255
    Image.fromarray(gray).save(path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("train_set", "train"), ("Training Set", "train"), ("TrainImages", "train"),
        ("test-data", "test"), ("testing", "test"), ("valid", "val"), ("validation_split", "val"), ("dev", "val"),
        ("glioma", ""), ("contest", ""), ("trained", ""), ("test results", ""),
    ],
)  # fmt: skip
def test_what_a_folder_name_says(name, split):
    assert split_of(name) == split
    assert (kind_of(name) == "split") == bool(split)


@pytest.mark.parametrize(
    "names",
    [
        ("chest_train", "chest_test"), ("seg_train", "seg_val", "seg_test"), ("01_train", "02_val", "03_test"),
        ("train-jpeg", "test-jpeg"), ("XrayTrain", "XrayTest"), ("train_1", "train_2", "test"),
    ],
)  # fmt: skip
def test_splits_that_only_stand_beside_each_other_are_never_labels(tmp_path, names):
    for index, top in enumerate(names):
        for label in ("cyst", "stone"):
            picture(tmp_path / top / label / "1.png", index)
    dataset = load_data(tmp_path)
    assert dataset.features["label"].names == ["cyst", "stone"]
    sides = {name.split("/")[0]: split for name, split in zip(dataset["file_name"], dataset["split"], strict=True)}
    assert all(split in ("train", "val", "test") and split in top.lower() for top, split in sides.items())


def test_classes_that_hold_a_split_word_stay_classes(tmp_path):
    for label in ("stress test", "blood test", "train driver"):
        picture(tmp_path / label / "1.png")
    assert load_data(tmp_path).features["label"].names == ["blood test", "stress test", "train driver"]


@pytest.mark.parametrize(
    "names", [("fold_1", "fold_2"), ("Fold1", "Fold2"), ("cv0", "cv1"), ("split1", "split2"), ("train", "holdout")]
)
@pytest.mark.parametrize("inside", [False, True])
def test_folds_are_refused_as_such(tmp_path, names, inside):
    for top in names:
        for label in ("cyst", "stone"):
            picture(tmp_path / label / top / "1.png" if inside else tmp_path / top / label / "1.png")
    with pytest.raises(DataError, match=f"holds .*{names[1] if names[0] == 'train' else names[0]}.*no classes"):
        load_data(tmp_path)


def test_numbered_parts_are_one_data_set_and_no_labels(tmp_path):
    for part in ("images_001", "images_002", "part3"):
        for label in ("cyst", "stone"):
            picture(tmp_path / part / label / "1.png")
    dataset = load_data(tmp_path)
    assert dataset.features["label"].names == ["cyst", "stone"] and len(dataset) == 6
    assert any("images_001, images_002, part3 are read as parts" in note for note in notes_of(dataset))


def test_numbered_folders_inside_a_class_keep_their_slices_together(tmp_path):
    for label in "ab":
        for scan in range(3):
            for index in range(2):
                picture(tmp_path / label / f"{label}{scan}" / "images" / f"{index}.png", scan)
                picture(tmp_path / label / f"img_00{scan}" / f"{index}.png", scan)
    assert len(set(load_data(tmp_path)["group_id"])) == 9


def test_names_that_are_no_utf8_are_refused_in_a_sentence(tmp_path):
    for label in "ab":
        picture(tmp_path / label / "1.png")
    try:
        (tmp_path / "a" / "1.png").rename(tmp_path / "a" / "\udcff.png")
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError, match=r"not UTF-8 \(.*\\udcff\.png\)\. Rename"):
        load_data(tmp_path)


@pytest.mark.parametrize("names", [("train_set", "test_set"), ("Training data", "Testing data"), ("train", "valid")])
def test_split_names_are_never_labels(tmp_path, names):
    for index, top in enumerate(names):
        for label in ("cyst", "stone"):
            for number in range(3):
                picture(tmp_path / top / label / f"{number}.png", 100 * index + number)
    dataset = load_data(tmp_path)
    assert dataset.features["label"].names == ["cyst", "stone"]
    assert set(dataset["split"]) == {split_of(name) for name in names}


@pytest.mark.parametrize("names", [("train", "test"), ("train_set", "test_set")])
def test_splits_without_classes_are_refused(tmp_path, names):
    for top in names:
        picture(tmp_path / top / "1.png")
    with pytest.raises(DataError, match="a split by its name and holds no class folders"):
        load_data(tmp_path)


def test_splits_inside_the_classes(tmp_path):
    for label in "ab":
        for split in ("train", "val", "test"):
            picture(tmp_path / label / split / "1.png")
    dataset = load_data(tmp_path)
    assert sorted(zip(dataset["file_name"], dataset["split"], strict=True))[0] == ("a/test/1.png", "test")
    assert len(set(dataset["group_id"])) == 6


def test_images_beside_masks(tmp_path):
    for label in ("benign", "malignant"):
        for index in range(4):
            picture(tmp_path / "images" / label / f"{index}.png", index)
            mask(tmp_path / "masks" / label / f"{index}.png", index)
    dataset = load_data(tmp_path)
    assert dataset.features["label"].names == ["benign", "malignant"] and len(dataset) == 8
    assert any("masks" in note for note in notes_of(dataset))


@pytest.mark.parametrize("name", ["{}_mask.png", "{}_mask_1.png", "{} mask.png", "{}-seg.png", "{}_Segmentation.png"])
def test_masks_beside_their_pictures_are_left_out(tmp_path, name):
    for label in "ab":
        for index in range(4):
            picture(tmp_path / label / f"x ({index}).png", index)
            mask(tmp_path / label / name.format(f"x ({index})"), index)
    dataset = load_data(tmp_path)
    assert len(dataset) == 8 and not [name for name in dataset["file_name"] if "mask" in name.lower()]
    assert any("Left out: 8 two-valued pictures" in note for note in notes_of(dataset))


def test_what_is_only_named_like_a_mask_is_kept_and_said(tmp_path):
    for label in "ab":
        for index in range(4):
            picture(tmp_path / label / f"{index}.png", index)
            picture(tmp_path / label / f"{index}_mask.png", 50 + index)
    dataset = load_data(tmp_path)
    assert len(dataset) == 16 and any("Kept: 8 pictures named like masks" in note for note in notes_of(dataset))


def test_a_class_may_be_called_mask(tmp_path):
    for label in ("mask", "no_mask"):
        for index in range(3):
            picture(tmp_path / label / f"{index}.png", index)
    assert load_data(tmp_path).features["label"].names == ["mask", "no_mask"]


def test_the_patient_folder_is_the_group(tmp_path):
    for label, own in (("a", range(0, 8)), ("b", range(8, 16))):
        for patient in own:
            for index in range(4):
                picture(tmp_path / label / f"patient{patient}" / "images" / f"{index}.png", 10 * patient + index)
    dataset = split_data(load_data(tmp_path))
    assert len(set(dataset["group_id"])) == 16
    sides = {}
    for group, split in zip(dataset["group_id"], dataset["split"], strict=True):
        sides.setdefault(group, set()).add(split)
    assert all(len(found) == 1 for found in sides.values())
    assert any("16 folders inside the class folders" in note and "patients" in note for note in notes_of(dataset))


@pytest.mark.parametrize("system", ["@eaDir", "__MACOSX", "#recycle", ".ipynb_checkpoints"])
def test_what_systems_leave_is_no_data(tmp_path, system):
    for label in "ab":
        for index in range(3):
            picture(tmp_path / label / f"{index}.png", index)
            picture(tmp_path / label / system / f"{index}.png", 70 + index)
    for index in range(3):
        picture(tmp_path / system / f"{index}.png", 90 + index)
    dataset = load_data(tmp_path)
    assert len(dataset) == 6 and dataset.features["label"].names == ["a", "b"]
    assert any(system in note for note in notes_of(dataset))


def test_other_files_are_said(tmp_path):
    for label in "ab":
        for index in range(3):
            picture(tmp_path / label / f"{index}.png", index)
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "patients.csv").write_text("x")
    picture(tmp_path / "loose.png")
    said = " ".join(notes_of(load_data(tmp_path)))
    assert "1 file(s) that are no images by their ending (.txt)" in said and "(.csv)" in said
    assert "lie in no class folder" in said


def test_classes_beside_a_container_are_refused(tmp_path):
    for name in ("images", "glioma", "normal"):
        picture(tmp_path / name / "1.png")
    with pytest.raises(DataError, match="cannot be told which of them are classes"):
        load_data(tmp_path)


def test_linked_patient_folders_are_read_and_a_loop_is_entered_once(tmp_path):
    for place in ("data/a/p1", "data/b/p2", "elsewhere"):
        (tmp_path / place).mkdir(parents=True)
        for index in range(3):
            Image.new("L", (8, 8), 10 * index).save(tmp_path / place / f"{index}.png")
    (tmp_path / "data" / "b" / "p7").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    dataset = load_data(tmp_path / "data")
    assert len(dataset) == 9 and sum(name.startswith("b/p7/") for name in dataset["file_name"]) == 3
