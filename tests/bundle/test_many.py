"""Many pictures at once say what each says alone, in the order of need, and can be stopped."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from medssl.bundle.many import ROW_COLUMNS, by_need, write_table
from medssl.errors import ImageError
from medssl.images import read_images
from tests.images.test_pictures import shuffled, zipped


@pytest.fixture(scope="module")
def bundle(tiny_bundles):
    return tiny_bundles["shapes"]


@pytest.fixture(scope="module")
def folder(tiny_data):
    return tiny_data["shapes"]


@pytest.fixture(scope="module")
def rows(bundle, folder):
    return bundle.analyze_many(folder)


def test_rows_say_what_one_by_one_says(bundle, folder, rows):
    assert len(rows) == 60
    for row in rows[::5]:
        alone = bundle.analyze(folder / row.entry.file, top_k=1, explain=False)
        tolerance = 1e-5 if bundle.backbone.precision == "fp32" else 0.02
        for label, value in alone.prediction.probabilities.items():
            assert row.prediction.probabilities[label] == pytest.approx(value, abs=tolerance)
        assert row.prediction.familiarity == pytest.approx(alone.prediction.familiarity, abs=tolerance)
        if tolerance < 1e-3:
            assert (row.prediction.label, row.prediction.prediction_set, row.prediction.familiar) == (
                alone.prediction.label,
                alone.prediction.prediction_set,
                alone.prediction.familiar,
            )
            assert (row.nearest.id, row.nearest.label) == (alone.cases[0].id, alone.cases[0].label)
            assert row.nearest.score == pytest.approx(alone.cases[0].score, abs=1e-5)


def test_a_search_of_many_is_the_search_of_each(bundle):
    library = bundle.library
    cases = bundle.cases.select(range(0, 60, 7))
    embeddings, ids = np.asarray(cases["embedding"][:], np.float32), cases["id"][:]
    for group in (None, cases["group_id"][0]):
        for found, embedding, own in zip(library.search_batch(embeddings, 5, ids, group), embeddings, ids, strict=True):
            assert found == [
                type(case)(**{**vars(case), "image": None}) for case in library.search(embedding, 5, group, own)
            ]


def test_files_frames_and_errors_are_rows(bundle, tmp_path):
    (tmp_path / "series.zip").write_bytes(zipped(shuffled(range(1, 5))))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pictures = [Image.new("RGB", (20, 20), (value,) * 3) for value in (10, 200)]
    pictures[0].save(tmp_path / "two.tif", save_all=True, append_images=pictures[1:])
    found = bundle.analyze_many(sorted(tmp_path.iterdir()))
    assert [(row.entry.file, row.entry.frame, row.entry.series) for row in found[:1]] == [("broken.png", 0, "")]
    assert found[0].prediction is None and "not an image" in found[0].error
    assert [row.entry.series for row in found[1:5]] == ["series 1"] * 4
    assert [(row.entry.frame, row.entry.frames) for row in found[5:]] == [(0, 2), (1, 2)]
    assert [row.number for row in found] == list(range(7))
    assert all(list(row.to_dict()) == list(ROW_COLUMNS) for row in found)


def test_images_in_memory_are_taken_too(bundle):
    found = bundle.analyze_many([Image.new("RGB", (20, 20), "red"), Image.new("RGB", (30, 20), "blue")])
    assert [row.entry.file for row in found] == ["image 0", "image 1"] and all(row.prediction for row in found)


def test_what_needs_a_look_comes_first(rows, bundle, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no picture")
    ordered = by_need([*rows, *bundle.analyze_many(tmp_path)])
    assert ordered[0].prediction is None
    kinds = [(row.prediction.familiar is not False, -len(row.prediction.prediction_set)) for row in ordered[1:]]
    assert kinds == sorted(kinds) and len(set(kinds)) > 1


def test_the_table_holds_every_row_in_one_line(rows):
    stream = io.StringIO()
    write_table((row.to_dict() for row in rows), stream)
    lines = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert len(lines) == 60 and list(lines[0]) == list(ROW_COLUMNS)
    formula = {**rows[0].to_dict(), "file": "=cmd|x.png"}
    again = io.StringIO()
    write_table([formula], again)
    assert "'=cmd|x.png" in again.getvalue()


def test_progress_is_told_and_stops(bundle, folder):
    told = []

    def tell(fraction, text):
        told.append((fraction, text))
        if len(told) == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bundle.analyze_many(read_images(folder), progress=tell)
    assert told[-1] == (24 / 60, "Picture 25 of 60")


def test_nothing_to_read_is_said(bundle, tmp_path):
    for nothing in (tmp_path, []):
        with pytest.raises(ImageError, match="no image"):
            bundle.analyze_many(nothing)
