"""Several pictures on the page: one is chosen, a table answers for each, one answer for all; stopped and gone on."""

from __future__ import annotations

import csv
import re
import zipfile
from html import unescape
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from medssl.bundle.many import by_need
from medssl.errors import BundleError, ImageError
from medssl.images import read_image
from medssl.web import uploads, work
from medssl.web.page import Page
from medssl.web.panels import many
from medssl.web.panels.heatmap import PREDICTED
from medssl.web.service import Service
from tests.conftest import TINY_TASKS, sample
from tests.images.test_pictures import SECOND, one_slice, shuffled
from tests.pictures import dicom


def quiet(*_args, **_more):
    """A progress bar that nobody sees."""


@pytest.fixture
def page(tiny_bundles, monkeypatch):
    monkeypatch.setattr(work, "TOLD_EVERY", 0.0)
    with gr.Blocks():
        made = Page(Service(tiny_bundles))
    made.all, made.choice = (next(p for p in made.panels if p.name == name) for name in ("all", "choice"))
    return made


@pytest.fixture
def files(tiny_data, broken_file):
    """One picture of each class, a broken file among them."""
    known = [str(sample(tiny_data["shapes"], label)) for label in TINY_TASKS["shapes"]]
    return [known[0], str(broken_file), *known[1:]]


def numbers(table):
    """The numbers of a table's rows, in its order."""
    return [int(number) for number in re.findall(r'<tr data-number="(\d+)"', table)]


def last(steps):
    """What is shown at the end."""
    return list(steps)[-1]


def received(page, *paths):
    *_, shown = page.receive(None, [str(path) for path in paths])
    return shown[page.visit], shown


def zip_of(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_one_file_of_one_picture_has_no_slider_and_no_table(page, shapes_image, tmp_path):
    alone = zip_of(tmp_path / "one.zip", {"a.png": shapes_image.read_bytes()})
    for path in (shapes_image, alone):
        visit, shown = received(page, path)
        assert visit.many is None and not shown[page.choice.slider].visible and not shown[page.all.box].visible
        np.testing.assert_array_equal(np.asarray(visit.image), np.asarray(read_image(shapes_image)))
    with pytest.raises(ImageError, match="no several pictures"):
        last(page.all.table_of(visit, "shapes", "", quiet))


def test_frames_are_counted_and_chosen_and_analyzed(page, tiny_bundles, tmp_path):
    grays = (10, 90, 200)
    path = tmp_path / "three.dcm"
    path.write_bytes(dicom(np.stack([np.full((16, 16), gray, np.uint8) for gray in grays])))
    visit, shown = received(page, path)
    slider = shown[page.choice.slider]
    assert (slider.maximum, slider.value, slider.visible) == (3, 1, True)
    assert "3 pictures" in shown[page.all.said] and "Number 1 of 3" in shown[page.choice.said]
    turned = page.turn(visit, 3)
    third = turned[page.visit]
    assert np.asarray(Image.open(turned[page.preview])).mean() == 200 and third.picture.dicom
    assert "Number 3 of 3" in turned[page.choice.said] and not turned[page.results].visible
    *_, last = page.run(third, "shapes", PREDICTED, 0.5, "vit_cx", quiet)
    alone = tiny_bundles["shapes"].analyze(read_image(path, frame=2), explain=False)
    assert third.analysis.prediction.probabilities == pytest.approx(alone.prediction.probabilities, abs=1e-5)
    assert page.turn(third, 3) == gr.skip()


def test_of_a_series_the_middle_is_shown_first(page, tmp_path):
    slices = {f"im{at}.dcm": one_slice(30 * at, at, number=at) for at in range(5)}
    visit, shown = received(page, zip_of(tmp_path / "series.zip", slices))
    assert visit.number == 2 and np.asarray(visit.image).mean() == 60
    assert "1 series" in shown[page.all.said] and "by number 3" in shown[page.suggestion]


def test_another_picture_ends_what_ran_and_shows_nothing_of_the_old_one(page, files):
    visit, _ = received(page, *files)
    last(page.all.table_of(visit, "shapes", "", quiet))
    *_, _ = page.run(visit, "shapes", PREDICTED, 0.5, "vit_cx", quiet)
    visit.running = "analysis"
    fresh = page.turn(visit, 4)[page.visit]
    assert visit.stop.is_set() and fresh.analysis is None and not fresh.opened
    assert fresh.many is visit.many and len(fresh.many.rows) == 4


def test_a_picture_that_cannot_be_read_leaves_the_old_one(page, files, monkeypatch):
    said = []
    monkeypatch.setattr(gr, "Warning", said.append)
    visit, _ = received(page, *files)
    kept = page.turn(visit, 2)
    assert page.visit not in kept and kept[page.choice.slider].value == 1
    assert "Number 2 cannot be read" in said[0] and "Number 1 stays" in said[0]


def test_nothing_readable_is_said(page, broken_file, tmp_path):
    other = tmp_path / "other.png"
    other.write_bytes(broken_file.read_bytes())
    with pytest.raises(ImageError, match="None of the 2 pictures can be read"):
        received(page, broken_file, other)


def test_the_table_has_the_rows_of_python_sorted_by_need(page, tiny_bundles, files):
    visit, _ = received(page, *files)
    shown = last(page.all.table_of(visit, "shapes", "", quiet))
    expected = by_need(tiny_bundles["shapes"].analyze_many(files))
    html = shown[page.all.table]
    assert [f'data-number="{row.number}"' in html for row in expected] == [True] * 4
    places = [html.index(f'data-number="{row.number}"') for row in expected]
    assert places == sorted(places) and expected[0].error in html
    with open(shown[page.all.csv].value["path"], encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [row.entry.file for row in expected]
    assert [row["label"] for row in rows[1:]] == [row.prediction.label for row in expected[1:]]
    assert "1 could not be read" in shown[page.all.state]
    assert page.all.open(visit, SimpleNamespace(number=expected[1].number)) == expected[1].number + 1
    for wrong in (4, -1, "1", None):
        with pytest.raises(ImageError, match="Upload the files again"):
            page.all.open(visit, SimpleNamespace(number=wrong))


def test_names_of_files_cannot_become_markup(page, shapes_image, tmp_path):
    data = shapes_image.read_bytes()
    visit, shown = received(page, zip_of(tmp_path / "x.zip", {"<img src=x>.png": data, "=1+1.png": data}))
    found = last(page.all.table_of(visit, "shapes", "", quiet))
    assert "<img" not in found[page.all.table] + shown[page.choice.said]
    text = Path(found[page.all.csv].value["path"]).read_text("utf-8")
    assert "\n=1" not in text and "=1+1.png" in text


def test_stopped_rows_stay_and_the_next_run_goes_on(page, tiny_bundles, files, monkeypatch):
    monkeypatch.setattr(tiny_bundles["shapes"].backbone, "batch_size", lambda _preprocess: 2)
    visit, _ = received(page, *files)
    said, told = {}, []

    def press(_fraction, desc):
        told.append(desc)
        if "Picture 3" in desc and not said:
            said.update(page.stop_said(visit))

    begun, end = page.all.table_of(visit, "shapes", "", press)
    assert begun[page.all.table] == "" and end[page.all.state] == said[page.all.state]
    assert "Stopped after 2 of 4 pictures" in said[page.all.state]
    assert said[page.all.table].count("data-number") == 2 and said[page.all.csv].visible
    assert not visit.many.running
    told.clear()
    begun, shown = page.all.table_of(visit, "shapes", "", press)
    assert begun[page.all.table].count("data-number") == 2 and "Stopped" not in begun[page.all.state]
    assert not begun[page.all.csv].visible
    assert told == ["Picture 3 of 4", "Picture 4 of 4"]
    assert shown[page.all.table].count("data-number") == 4
    assert [row.number for row in visit.many.rows] == [0, 1, 2, 3]
    told.clear()
    last(page.all.table_of(visit, "tints", "", press))
    assert len(told) == 4


def test_a_table_grows_at_the_end_of_a_batch_and_its_file_comes_last(page, tiny_bundles, files, monkeypatch):
    monkeypatch.setattr(tiny_bundles["shapes"].backbone, "batch_size", lambda _preprocess: 1)
    monkeypatch.setattr(many, "SHOWN_EVERY", 0.0)
    visit, _ = received(page, *files)
    expected = tiny_bundles["shapes"].analyze_many(files)
    for ask in (page.all.table_of, page.all.answer_of):
        visit.many.rows = []
        begun, *grown, end = ask(visit, "shapes", "", quiet)
        assert begun[page.all.table] == "" and len(grown) == 3
        for count, shown in enumerate(grown, 1):
            assert numbers(shown[page.all.table]) == [row.number for row in by_need(expected[:count])]
            assert not shown[page.all.csv].visible and shown[page.all.answer] == ""
        assert numbers(end[page.all.table]) == [row.number for row in by_need(expected)]
        assert end[page.all.csv].visible


def test_a_long_table_is_shown_anew_only_where_it_has_grown(page, tiny_bundles, shapes_image, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_bundles["shapes"].backbone, "batch_size", lambda _preprocess: 1)
    monkeypatch.setattr(many, "SHOWN_EVERY", 0.0)
    data = shapes_image.read_bytes()
    visit, _ = received(page, zip_of(tmp_path / "x.zip", {f"{at:02d}.png": data for at in range(30)}))
    _, *grown, _ = page.all.table_of(visit, "shapes", "", quiet)
    counts = [len(numbers(shown[page.all.table])) for shown in grown]
    assert counts[:3] == [1, 2, 3] and all(after >= 1.1 * before for before, after in pairwise(counts))
    assert len(counts) < 29


def test_a_batch_that_stop_came_in_is_kept_and_is_the_last(page, tiny_bundles, files, monkeypatch):
    bundle = tiny_bundles["shapes"]
    monkeypatch.setattr(bundle.backbone, "batch_size", lambda _preprocess: 2)
    monkeypatch.setattr(many, "SHOWN_EVERY", 0.0)
    visit, _ = received(page, *files)
    classify, said = type(bundle).classify_frames, []

    def pressed_meanwhile(own, frames):
        said.append(page.stop_said(visit))
        return classify(own, frames)

    monkeypatch.setattr(type(bundle), "classify_frames", pressed_meanwhile)
    begun, end = page.all.table_of(visit, "shapes", "", quiet)
    assert begun[page.all.table] == "" and "Stopped after 0 of 4" in said[0][page.all.state]
    assert "Stopped after 2 of 4" in end[page.all.state] and len(numbers(end[page.all.table])) == 2


def test_a_run_that_a_new_upload_ended_shows_nothing_more(page, files):
    visit, _ = received(page, *files)
    old = page.all.table_of(visit, "shapes", "", quiet)
    next(old)
    page.forget(visit)
    assert list(old) == [gr.skip()]


def test_one_answer_for_all_is_that_of_python(page, tiny_bundles, files):
    visit, _ = received(page, *files)
    bundle = tiny_bundles["shapes"]
    group = bundle.cases["group_id"][0]
    shown = last(page.all.answer_of(visit, "shapes", f" {group} ", quiet))
    expected = bundle.analyze_group(files, group)
    html = unescape(shown[page.all.answer])
    assert f"{expected.prediction.label} <span>" in html and "3 pictures together" in html
    for decider in expected.deciding:
        assert f'data-number="{decider.row.number}"' in html
    for similar in expected.similar:
        assert similar.group_id in html and similar.group_id != group
    assert expected.rule in html and "1 could not be read and is left out" in html
    assert shown[page.all.table].count("data-number") == 4
    assert page.turn(visit, 3)[page.visit].group == group


def test_each_series_has_a_card_of_its_own_unless_a_group_is_named(page, tiny_bundles, tmp_path):
    first, second = shuffled(range(1, 4)), shuffled(range(11, 15), series=SECOND)
    study = zip_of(
        tmp_path / "study.zip", {**{f"a/{k}": v for k, v in first.items()}, **second, "bad.png": b"no picture"}
    )
    visit, shown = received(page, study)
    assert shown[page.all.together].value == "One answer for each of 3 series"
    assert page.all.named(visit, "p1")[page.all.together].value == "One answer for all 8"
    assert page.all.named(visit, " ")[page.all.together].value == "One answer for each of 3 series"
    assert page.all.named(None, "p1") == {}
    html = last(page.all.answer_of(visit, "shapes", "", quiet))[page.all.answer]
    expected = tiny_bundles["shapes"].analyze_group(study)
    cards = re.split(r'(?=<div class="ms-card)', html)
    assert "2 series, each with an answer of its own" in cards[0] and "without a series could be read" in cards[0]
    for card, answer, count in zip(cards[1:], expected.answers, (3, 4), strict=True):
        assert f"{answer.series}, {count} pictures" in card and f"{answer.prediction.label} <span>" in card
        opened = [int(number) for number in re.findall(r'button" data-number="(\d+)"', card)]
        assert opened == [one.row.number for one in answer.deciding]
    html = last(page.all.answer_of(visit, "shapes", "p1", quiet))[page.all.answer]
    assert html.count('class="ms-card') == 1 and "all 7 pictures together, p1" in html


def test_too_many_and_an_unknown_task_are_refused(page, files, monkeypatch):
    visit, _ = received(page, *files)
    monkeypatch.setattr(uploads, "MOST_PICTURES", 3)
    for ask in (page.all.table_of, page.all.answer_of):
        with pytest.raises(ImageError, match="4 pictures .* at most 3"):
            last(ask(visit, "shapes", "", quiet))
    monkeypatch.undo()
    with pytest.raises(BundleError, match="no task"):
        last(page.all.table_of(visit, "nothing", "", quiet))


def test_another_task_empties_the_table_and_a_new_upload_hides_it(page, files, shapes_image):
    visit, _ = received(page, *files)
    visit.task = "shapes"
    last(page.all.table_of(visit, "shapes", "", quiet))
    shown = page.change_task(visit, "tints")
    assert shown[page.all.table] == "" and shown[page.all.box].visible and shown[page.choice.slider].visible
    *_, shown = page.receive(visit, [str(shapes_image)])
    assert not shown[page.all.box].visible


def test_the_named_patients_cases_are_left_out_from_the_moment_it_is_named(page, files):
    visit, _ = received(page, *files)
    page.all.named(visit, " dots-0 ")
    assert visit.group == "dots-0" and page.turn(visit, 3)[page.visit].group == "dots-0"
    page.all.named(visit, "")
    assert visit.group is None and page.turn(visit, 3)[page.visit].group is None
