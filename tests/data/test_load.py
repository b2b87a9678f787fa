"""Loading folders and data sets, labels in a declared order, and splits by group."""

import csv
import shutil
from collections import defaultdict

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageColumn
from PIL import Image
from pydicom.data import get_testdata_file

from medssl.data.hub import hub_part
from medssl.data.load import load_data, read_record
from medssl.data.rows import SPLITS
from medssl.data.split import split_data
from medssl.errors import DataError, ImageError


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 10, 3), value, np.uint8)).save(path)


def metadata(folder, rows, columns=None):
    """Writes metadata.csv; a file for every row that names a plain one."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = columns or list(rows[0])
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Six images, two labels, all optional columns."""
    rows = []
    for index in range(6):
        picture(tmp_path / "data" / f"{index}.png", index)
        box = dict(zip(("box_left", "box_top", "box_right", "box_bottom"), ("0.1", "0.2", "0.5", "0.75"), strict=True))
        rows.append(
            {
                "file_name": f"{index}.png",
                "label": "ab"[index % 2],
                "split": ("train", "validation", "test")[index // 2],
                "group_id": f"g{index // 2}",
                "source": "here",
                **(box if index % 2 else dict.fromkeys(box, "")),
            }
        )
    return metadata(tmp_path / "data", rows)


def change(folder, line, **values):
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[line].update(values)
    return metadata(folder, rows)


def test_metadata_folder(folder):
    data = load_data(folder)
    assert data.features["label"].names == ["a", "b"]
    assert data["split"][:] == ["train", "train", "val", "val", "test", "test"]
    assert data["group_id"][:] == ["g0", "g0", "g1", "g1", "g2", "g2"]
    assert set(data["source"][:]) == {"here"}
    assert data.features["box_left"].dtype == "float32"
    assert data["box_left"][0] is None and data["box_bottom"][1] == 0.75
    assert data[3]["image"] == {"bytes": None, "path": str(folder / "3.png")}, "no pixels are copied"
    assert np.asarray(read_record(data[3])).max() == 3


def test_absent_columns_get_their_defaults(tmp_path):
    for name in ("x.png", "y.png"):
        picture(tmp_path / name)
    metadata(tmp_path, [{"file_name": "x.png", "label": "a"}, {"file_name": "y.png", "label": "b"}])
    data = load_data(str(tmp_path))
    assert data["group_id"][:] == ["x.png", "y.png"] and data["split"][:] == ["", ""] and data["source"][:] == ["", ""]
    assert "box_left" not in data.column_names


def test_labels_in_the_declared_order(folder):
    data = load_data(folder, labels=["b", "a"])
    assert data.features["label"].names == ["b", "a"]
    assert data["label"][:2] == [1, 0]


@pytest.mark.parametrize(("labels", "named"), [(["a", "c"], ("b", "c")), (["a"], ("b",)), (["a", "b", "c"], ("c",))])
def test_label_mismatch_is_refused(folder, labels, named):
    with pytest.raises(DataError, match="do not match") as caught:
        load_data(folder, labels=labels)
    assert all(name in str(caught.value).split("not declared")[1] for name in named)


@pytest.mark.parametrize("labels", ["ab", ["a", "a", "b"]])
def test_declared_labels_must_be_different_names(folder, labels):
    with pytest.raises(DataError, match="different names"):
        load_data(folder, labels=labels)


def test_class_folders_carry_every_kind_of_file(tmp_path):
    picture(tmp_path / "sick" / "one.tiff")
    picture(tmp_path / "well" / "deeper" / "two.png")
    shutil.copy(get_testdata_file("CT_small.dcm"), tmp_path / "sick" / "scan.dcm")
    shutil.copy(get_testdata_file("CT_small.dcm"), tmp_path / "well" / "IM0001")
    (tmp_path / "well" / "broken.png").write_bytes(b"nothing")
    (tmp_path / "well" / "notes.txt").write_text("not an image")
    (tmp_path / "well" / ".DS_Store").write_text("not an image")
    (tmp_path / "__MACOSX").mkdir()
    data = load_data(tmp_path)
    assert data["file_name"][:] == [
        "sick/one.tiff",
        "sick/scan.dcm",
        "well/IM0001",
        "well/broken.png",
        "well/deeper/two.png",
    ]
    assert data["label"][:] == [0, 0, 1, 1, 1]
    assert read_record(data[1]).size == read_record(data[2]).size == (128, 128)
    with pytest.raises(ImageError):
        read_record(data[3])


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "Testing")])
def test_split_folders_are_never_labels(tmp_path, names):
    for name in names:
        for label in ("a", "b"):
            picture(tmp_path / name / label / "1.png")
    data = load_data(tmp_path)
    assert data.features["label"].names == ["a", "b"]
    assert sorted(data["split"][:]) == sorted(["train", "val", "test"] * 2)


def test_split_folders_beside_class_folders_are_refused(tmp_path):
    picture(tmp_path / "train" / "a" / "1.png")
    picture(tmp_path / "glioma" / "1.png")
    with pytest.raises(DataError, match="glioma"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"file_name": "gone.png"}, "does not exist"),
        ({"file_name": "../secret.png"}, "outside"),
        ({"file_name": "/etc/hostname"}, "outside"),
        ({"file_name": "."}, "outside|does not exist"),
        ({"file_name": "./1.png"}, "second time"),
        ({"file_name": ""}, "no file_name"),
        ({"label": ""}, "no label"),
        ({"label": "NaN"}, "no label"),
        ({"split": "holdout"}, "holdout.*Allowed: train, val, test"),
        ({"box_left": "wide", "box_top": "0", "box_right": "1", "box_bottom": "1"}, "no number"),
        ({"box_left": "40", "box_top": "10", "box_right": "90", "box_bottom": "80"}, "fractions"),
        ({"box_left": "0.1", "box_top": "nan", "box_right": "0.2", "box_bottom": "1"}, "fractions"),
    ],
)
def test_bad_lines_are_named(folder, values, message):
    change(folder, 0, **values)
    with pytest.raises(DataError, match=message) as caught:
        load_data(folder)
    assert ("line 3" if message == "second time" else "line 2") in str(caught.value)


def test_bad_folders(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no images"):
        load_data(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        load_data(tmp_path / "file")
    picture(tmp_path / "only" / "1.png")
    with pytest.raises(DataError, match="one label only"):
        load_data(tmp_path)
    (tmp_path / "metadata.csv").write_text("file;remark\n")
    with pytest.raises(DataError, match="lacks the column label; it has: file, remark"):
        load_data(tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"file_name,label\nr\xe9tine.png,a\n")
    with pytest.raises(DataError, match="UTF-8"):
        load_data(tmp_path)
    (tmp_path / "metadata.csv").rename(tmp_path / "metadata.jsonl")
    with pytest.raises(DataError, match="metadata.jsonl"):
        load_data(tmp_path)


def test_linked_files_are_read_as_hub_snapshots_have_them(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / "blobs" / f"{name}.png", 9)
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.png").symlink_to(tmp_path / "blobs" / f"{name}.png")
    metadata(tmp_path / "data", [{"file_name": f"{name}/1.png", "label": name} for name in "ab"])
    assert np.asarray(read_record(load_data(tmp_path / "data")[0])).max() == 9


def test_unreachable_hub_data_set_is_a_plain_error():
    with pytest.raises(DataError, match="nobody/nothing.*could not be loaded"):
        load_data("nobody/nothing")


def hub_like(labels, **columns):
    images = [{"bytes": None, "path": "x.png"}] * len(labels)
    features = Features({"image": ImageColumn(), "label": ClassLabel(names=["a", "b"])})
    data = Dataset.from_dict({"image": images, "label": labels}, features=features)
    for name, values in columns.items():
        data = data.add_column(name, values)
    return data


def test_hub_rows_have_the_same_columns():
    part, notes = hub_part(hub_like([1, 0], group_id=[7, 8]), "validation", True, "some/set")
    assert notes == []
    assert part["label"][:] == ["b", "a"] and part["split"][:] == ["val", "val"]
    assert part["group_id"][:] == ["7", "8"] and part["file_name"][:] == ["validation/0", "validation/1"]
    assert part.features["image"] == ImageColumn(decode=False)


def test_hub_columns_under_other_names_are_read_and_unused_ones_said():
    part, notes = hub_part(hub_like([1, 0], PatientID=["p", "NA"], age=[3, 4]), "train", True, "some/set")
    assert part["group_id"][:] == ["p", "train/1"]
    assert any("'PatientID' is read as group_id" in note for note in notes)
    assert any("not used: the column 'age'" in note for note in notes)
    assert any("1 of 2 rows have no 'PatientID'" in note for note in notes)


def test_hub_rows_without_a_label_are_refused():
    with pytest.raises(DataError, match="1 of 2 rows of some/set, split test, have no label"):
        hub_part(hub_like([0, -1]), "test", True, "some/set")
    with pytest.raises(DataError, match="holdout"):
        hub_part(hub_like([0, 1], split=["train", "holdout"]), "train", False, "some/set")


def test_bytes_count_more_than_a_path_of_the_same_name(tmp_path, monkeypatch):
    picture(tmp_path / "x.png", 1)
    picture(tmp_path / "y.png", 2)
    monkeypatch.chdir(tmp_path)
    record = {"image": {"bytes": (tmp_path / "y.png").read_bytes(), "path": "x.png"}}
    assert np.asarray(read_record(record)).max() == 2
    with pytest.raises(ImageError, match="no image"):
        read_record({"image": {"bytes": None, "path": None}})


def rows(sizes, split=None, shuffle=0):
    """A data set without images: sizes[label] is the list of its groups' sizes."""
    made = [(c, f"{c}-{g}") for c, groups in enumerate(sizes) for g, size in enumerate(groups) for _ in range(size)]
    if shuffle:
        np.random.default_rng(shuffle).shuffle(made)
    made = [(int(label), str(group)) for label, group in made]
    names = [f"class{index}" for index in range(len(sizes))]
    data = Dataset.from_dict({"label": [label for label, _ in made]}, Features({"label": ClassLabel(names=names)}))
    data = data.add_column("group_id", [group for _, group in made], feature=Value("string"))
    return data.add_column("split", split or [""] * len(made), feature=Value("string"))


def check_split(data, sizes):
    where, counts = defaultdict(set), defaultdict(int)
    for label, group, split in zip(data["label"], data["group_id"], data["split"], strict=True):
        where[group].add(split)
        counts[label, split] += 1
    assert all(len(splits) == 1 for splits in where.values()), "a group in two splits"
    assert all(counts[label, split] for label in range(len(sizes)) for split in SPLITS)
    return counts


def test_split_keeps_groups_whole_and_classes_balanced():
    sizes = [[4] * 40, [3] * 30, [1] * 50]
    counts = check_split(split_data(rows(sizes)), sizes)
    for label, groups in enumerate(sizes):
        shares = [counts[label, split] / sum(groups) for split in SPLITS]
        assert np.allclose(shares, (0.6, 0.2, 0.2), atol=0.03), shares


def test_split_is_seeded_and_blind_to_file_order():
    sizes = [[4] * 20, [3] * 20]

    def sides(data):
        return dict(zip(data["group_id"], data["split"], strict=True))

    first = sides(split_data(rows(sizes), seed=1))
    assert first == sides(split_data(rows(sizes), seed=1)) == sides(split_data(rows(sizes, shuffle=5), seed=1))
    assert first != sides(split_data(rows(sizes), seed=2))


@pytest.mark.parametrize("seed", range(8))
def test_a_rare_class_reaches_every_split(seed):
    sizes = [[3] * 40, [2] * 40, [2] * 4]
    check_split(split_data(rows(sizes), seed=seed), sizes)


def test_given_splits_are_kept(folder):
    data = load_data(folder)
    assert split_data(data, seed=3)["split"][:] == data["split"][:]


def test_val_is_made_of_train_groups_only():
    sizes = [[2] * 20, [2] * 20]
    given = [("test" if index % 40 < 8 else "train") for index in range(80)]
    data = split_data(rows(sizes, given))
    counts = check_split(data, sizes)
    assert all(new == "test" for new, old in zip(data["split"], given, strict=True) if old == "test")
    assert counts[0, "test"] == 8 and counts[0, "val"] == 8, "a quarter of the 32 left in train"


@pytest.mark.parametrize(
    ("sizes", "given", "fractions", "message"),
    [
        ([[2] * 20, [2] * 2], None, (0.6, 0.2, 0.2), "class1"),
        ([[2] * 2, [2] * 2], None, (0.6, 0.2, 0.2), "too few"),
        ([[50], [50]], None, (0.6, 0.2, 0.2), "too few"),
        ([[2] * 20, [2] * 20], ["train"] * 79 + [""], (0.6, 0.2, 0.2), "1 of 80 rows have no split"),
        ([[2] * 20, [2] * 20], ["test"] * 80, (0.6, 0.2, 0.2), "train is missing"),
        ([[2] * 20, [2] * 20], None, (0.8, 0.2, 0.0), "sum to 1"),
        ([[2] * 20, [2] * 20], None, (0.6, 0.2, 0.4), "sum to 1"),
    ],
)
def test_splits_that_cannot_be(sizes, given, fractions, message):
    with pytest.raises(DataError, match=message):
        split_data(rows(sizes, given), fractions=fractions)
