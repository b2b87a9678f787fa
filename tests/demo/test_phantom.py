"""Phantoms as a data set and as a folder: seeded, split by patient, with masks that fit their boxes."""

import numpy as np
import pytest
from PIL import Image

from medssl.data.annotations import is_annotated, lesion_area
from medssl.data.load import load_data, read_record
from medssl.data.rows import BOX_COLUMNS
from medssl.data.split import split_data
from medssl.data.tasks import TASKS
from medssl.demo.phantom import (
    DRAWERS,
    PER_GROUP,
    draw_phantom,
    draw_phantoms,
    masks_of,
    phantom_dataset,
    write_phantoms,
)
from medssl.errors import DataError

WITHOUT_LESION = {"benign", "no_tumor", "normal"}


def test_every_demo_task_has_a_drawer_with_its_labels_and_says_it_is_synthetic():
    drawn = {name: labels for name, (labels, _) in DRAWERS.items()}
    assert drawn == {name: task.labels for name, task in TASKS.items() if task.synthetic}
    assert all("synthetic" in TASKS[name].title for name in drawn)


@pytest.mark.parametrize("task", DRAWERS)
def test_a_phantom_depends_on_its_seed_and_number_alone(task):
    label = TASKS[task].labels[0]
    first, again = draw_phantom(task, label, 3, seed=5), draw_phantom(task, label, 3, seed=5)
    assert first.image.tobytes() == again.image.tobytes() and first.mask.tobytes() == again.mask.tobytes()
    for other in (draw_phantom(task, label, 3, seed=6), draw_phantom(task, label, 4, seed=5)):
        assert other.image.tobytes() != first.image.tobytes()


@pytest.mark.parametrize("task", DRAWERS)
def test_masks_are_empty_exactly_where_there_is_no_lesion(task):
    for label in TASKS[task].labels:
        phantom = draw_phantom(task, label, 0)
        assert phantom.image.dtype == np.uint8 and phantom.image.shape == (*phantom.mask.shape, 3)
        assert phantom.mask.any() == (label not in WITHOUT_LESION), label
        assert (phantom.box is None) == (label in WITHOUT_LESION)


def test_drawn_on_all_cores_they_are_what_they_are_alone():
    for phantom in draw_phantoms("brain-demo", 2, seed=1):
        alone = draw_phantom("brain-demo", phantom.label, int(phantom.name.split("/")[1]), seed=1)
        assert np.array_equal(phantom.image, alone.image) and phantom.group_id == alone.group_id


def test_folder_and_data_set_hold_the_same_pictures(tmp_path):
    folder = write_phantoms(tmp_path / "brain", "brain-demo", 10)
    from_folder, made = load_data(folder), phantom_dataset("brain-demo", 10)
    assert from_folder["file_name"][:] == made["file_name"][:]
    assert from_folder["label"][:] == made["label"][:] and from_folder["group_id"][:] == made["group_id"][:]
    for index in (0, 17, 39):
        row, picture = made[index], np.asarray(read_record(from_folder[index]))
        assert np.array_equal(np.asarray(row["image"]), picture)
        mask = np.asarray(Image.open(masks_of(folder) / row["file_name"])) > 0
        assert np.array_equal(np.asarray(row["mask"]) > 0, mask)
        box = [row[name] for name in BOX_COLUMNS]
        if mask.any():
            rows, columns = np.nonzero(mask)
            height, width = mask.shape
            expected = [
                columns.min() / width,
                rows.min() / height,
                (columns.max() + 1) / width,
                (rows.max() + 1) / height,
            ]
            assert box == pytest.approx(expected, abs=1e-6)
            assert [from_folder[index][name] for name in BOX_COLUMNS] == pytest.approx(expected, abs=1e-5)
        else:
            assert box == [None] * 4
        assert np.array_equal(lesion_area(from_folder[index], *mask.shape) > 0, mask)
        assert is_annotated(from_folder[index]), "an empty mask says that there is no lesion"
    groups = np.array(made["group_id"][:])
    splits = np.array(split_data(from_folder)["split"][:])
    assert {name: (splits == name).sum() for name in ("train", "val", "test")} == {"train": 24, "val": 8, "test": 8}
    assert all(len(set(splits[groups == group])) == 1 and (groups == group).sum() == PER_GROUP for group in set(groups))


def test_what_cannot_be_drawn_is_refused(tmp_path):
    for asked, said in ((("kidney-demo", 2), "Allowed: lung-demo"), (("eye-demo", 0), "at least 1")):
        with pytest.raises(DataError, match=said):
            write_phantoms(tmp_path / "new", *asked)
    with pytest.raises(DataError, match="no label 'flu'"):
        draw_phantom("eye-demo", "flu", 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("kept")
    with pytest.raises(DataError, match="not empty"):
        write_phantoms(tmp_path / "full", "eye-demo", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
