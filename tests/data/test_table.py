"""A metadata.csv as people write it: used for what it means, or refused with the column's name; nothing in silence."""

import csv

import numpy as np
import pytest
from PIL import Image

from medssl.data.columns import SYNONYMS, squashed
from medssl.data.load import load_data
from medssl.data.notes import notes_of
from medssl.data.split import split_data
from medssl.errors import DataError


def write(folder, header, rows, name="metadata.csv", delimiter=","):
    """A folder with that table and a picture of its own for every row's first cell."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    for index, row in enumerate(rows):
        Image.fromarray(np.full((6, 7, 3), index % 251, np.uint8)).save(folder / row[0].strip())
    return folder


def patients(count=20, slices=4):
    """Rows of file, label and patient: slices of one patient after another."""
    return [
        [f"{patient}-{index}.png", "ab"[patient % 2], f"p{patient}"]
        for patient in range(count)
        for index in range(slices)
    ]


def crossing(dataset) -> int:
    """How many of the patients named in the file names lie in more than one split."""
    sides = {}
    for name, split in zip(dataset["file_name"][:], dataset["split"][:], strict=True):
        sides.setdefault(name.split("-")[0], set()).add(split)
    return sum(len(found) > 1 for found in sides.values())


@pytest.mark.parametrize(
    "header",
    [
        ("group_id"), (" group_id"), ("Group_ID "), ("Group ID"), ("group-id"), ("patient_id"), ("PatientID"),
        ("patient"), ("Subject"), ("subject_id"), ("case_id"), ("slide"), ("StudyInstanceUID"), ("Participant ID"),
        ("Patient No."), ("patient_nr"), ("PatID"), ("pt_id"), ("subj_id"), ("subject_number"), ("case_submitter_id"),
        ("bcr_patient_barcode"), ("lesion_id"), ("AccessionNumber"), ("mouse"), ("slide_name"), ("patient_key"),
        ("anon_patient_id"), ("PATIENT_ID (anonymised)"), ("patients"), ("Series UID"), ("mrn"),
    ],
)  # fmt: skip
def test_no_patient_crosses_the_splits_whatever_the_column_is_called(tmp_path, header):
    folder = write(tmp_path / "data", ["file_name", "label", header], patients())
    dataset = load_data(folder)
    assert crossing(split_data(dataset)) == 0
    assert len(set(dataset["group_id"])) == 20
    said = any("read as group_id" in note for note in notes_of(dataset))
    assert said == (header != "group_id")


@pytest.mark.parametrize("header", ["patient_age", "PatientSex", "slide_no", "series number", "patient_group_size"])
def test_a_fact_about_a_patient_is_no_group(tmp_path, header):
    dataset = load_data(write(tmp_path / "data", ["file_name", "label", header], patients(8)))
    assert len(set(dataset["group_id"])) == 32 and any(repr(header) in note for note in notes_of(dataset))


def test_a_column_of_unknown_name_that_looks_like_groups_is_said(tmp_path):
    rows = [[*row, str(40 + index % 13)] for index, row in enumerate(patients())]
    folder = write(tmp_path / "data", ["file_name", "label", "Paciente", "age"], rows)
    said = [note for note in notes_of(load_data(folder)) if "Call it group_id" in note]
    assert len(said) == 1 and "'Paciente'" in said[0]
    folder = write(
        tmp_path / "own", ["file_name", "label", "Paciente", "group_id"], [[*row[:3], row[2]] for row in rows]
    )
    assert not [note for note in notes_of(load_data(folder)) if "Call it group_id" in note]


@pytest.mark.parametrize("name", ["Metadata.csv", "METADATA.CSV", "metadata.csv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_table_is_found_whatever_its_case_and_delimiter(tmp_path, name, delimiter):
    folder = write(tmp_path / "data", ["file_name", "label", "group_id"], patients(), name, delimiter)
    assert crossing(split_data(load_data(folder))) == 0


def test_two_tables_are_refused(tmp_path):
    folder = write(tmp_path / "data", ["file_name", "label"], [["0.png", "a"], ["1.png", "b"]])
    write(folder, ["file_name", "label"], [["0.png", "b"], ["1.png", "a"]], "Metadata.csv")
    with pytest.raises(DataError, match=r"Metadata\.csv and metadata\.csv"):
        load_data(folder)


@pytest.mark.parametrize("header", [" split", "Split", "SPLIT ", "subset", "partition", "fold", "set"])
def test_a_split_column_is_used_whatever_it_is_called(tmp_path, header):
    rows = [[f"{i}.png", "ab"[i % 2], ("train", "Validation", "test")[i // 2]] for i in range(6)]
    dataset = load_data(write(tmp_path / "data", ["file_name", "label", header], rows))
    assert dataset["split"][:] == ["train", "train", "val", "val", "test", "test"]


def test_numbered_folds_stop_the_run_and_say_what_they_would_mean(tmp_path):
    rows = [[f"{i}.png", "ab"[i % 2], str(i % 5)] for i in range(10)]
    with pytest.raises(DataError, match="column 'fold'.*which side of a split.*'0'.*Allowed: train, val, test"):
        load_data(write(tmp_path / "data", ["file_name", "label", "fold"], rows))


def test_two_columns_of_one_meaning(tmp_path):
    rows = [[f"{i}.png", "ab"[i % 2], "train", "test"] for i in range(4)]
    with pytest.raises(DataError, match="two columns of one name.*'split', 'split '|two columns.*' *split"):
        load_data(write(tmp_path / "one", ["file_name", "label", "split", "split "], rows))
    with pytest.raises(DataError, match="several columns that may mean split: 'subset', 'partition'"):
        load_data(write(tmp_path / "two", ["file_name", "label", "subset", "partition"], rows))
    exact = load_data(write(tmp_path / "three", ["file_name", "label", "split", "fold"], rows))
    assert set(exact["split"]) == {"train"} and any("not used: the column 'fold'" in n for n in notes_of(exact))


def test_of_patients_and_slides_the_patient_is_the_group(tmp_path):
    rows = [[*row, f"{row[2]}-{index % 2}"] for index, row in enumerate(patients())]
    dataset = load_data(write(tmp_path / "data", ["file_name", "label", "patient", "slide_id"], rows))
    assert set(dataset["group_id"]) == {f"p{index}" for index in range(20)}
    assert any("'patient' is taken as the group" in note for note in notes_of(dataset))


def test_groups_that_do_not_lie_in_each_other_are_refused(tmp_path):
    rows = [[f"{i}.png", "ab"[i % 2], str(i // 2), str((i + 1) // 2)] for i in range(8)]
    with pytest.raises(DataError, match="'patient', 'series'.*do not lie inside"):
        load_data(write(tmp_path / "data", ["file_name", "label", "patient", "series"], rows))


@pytest.mark.parametrize("value", ["NA", "nan", "N/A", "NULL", "", " ", "#N/A", "<NA>", "n.a.", "NaT", "#REF!"])
def test_no_value(tmp_path, value):
    rows = [[f"{i}.png", "ab"[i % 2], "p1" if i < 2 else value] for i in range(6)]
    dataset = load_data(write(tmp_path / "groups", ["file_name", "label", "patient"], rows))
    assert dataset["group_id"][:] == ["p1", "p1", "2.png", "3.png", "4.png", "5.png"]
    assert any("4 of 6 rows have no 'patient'" in note for note in notes_of(dataset))
    rows[3][1] = value
    with pytest.raises(DataError, match="line 5 has no label"):
        load_data(write(tmp_path / "labels", ["file_name", "label", "patient"], rows))


@pytest.mark.parametrize("value", ["None", "unknown", "-", "--", ".", "?", "Missing", "anonymised", "not available"])
def test_a_word_for_not_known_is_never_one_giant_group(tmp_path, value):
    rows = [[f"{i}.png", "ab"[i % 2], "p1" if i < 2 else value] for i in range(6)]
    dataset = load_data(write(tmp_path / "data", ["file_name", "label", "patient"], rows))
    assert dataset["group_id"][:] == ["p1", "p1", "2.png", "3.png", "4.png", "5.png"]


def test_groups_that_a_spreadsheet_wrote_differently_are_one(tmp_path):
    rows = [["0.png", "a", "7"], ["1.png", "b", "7.0"], ["2.png", "a", "P3"], ["3.png", "b", "p3 "]]
    dataset = load_data(write(tmp_path / "data", ["file_name", "label", "patient"], rows))
    assert dataset["group_id"][:] == ["7", "7", "P3", "P3"]
    assert any("taken as one group" in note for note in notes_of(dataset))


def test_a_column_that_is_not_used_is_said(tmp_path):
    rows = [[f"{i}.png", "ab"[i % 2], "f", "40", "x"] for i in range(4)]
    dataset = load_data(write(tmp_path / "data", ["file_name", "label", "sex", "age", ""], rows))
    said = " ".join(notes_of(dataset))
    assert "not used: the columns 'sex', 'age'" in said and "1 column(s) without a name" in said


def test_a_line_with_too_many_cells_is_named(tmp_path):
    folder = write(tmp_path / "data", ["file_name", "label"], [["0.png", "a"], ["1.png", "b"]])
    (folder / "metadata.csv").write_text("file_name,label\n0.png,a\n1.png,b,c\n")
    with pytest.raises(DataError, match="line 3 has 3 cells and the header 2"):
        load_data(folder)


def test_no_name_means_two_things():
    every = [name for names in SYNONYMS.values() for name in names]
    assert len(every) == len(set(every)) and all(name == squashed(name) for name in every)
