"""Which picture comes next, what is saved, and the fit in between."""

import csv
import shutil
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.data.load import load_data
from medssl.errors import DataError, ImageError
from medssl.web.annotate import AnnotatePage
from medssl.web.annotator import Annotator

BOXES = ("box_left", "box_top", "box_right", "box_bottom")


def without_boxes(source, place):
    """A copy of the data without its boxes, and the boxes by picture."""
    shutil.copytree(source, place)
    with open(place / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(place / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name not in BOXES], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return {row["file_name"]: tuple(float(row[name]) for name in BOXES) for row in rows if row["box_left"]}


@pytest.fixture
def annotator(lesion_data, tiny_backbone, tmp_path):
    """An annotator over a copy without boxes, and the true boxes."""
    boxes = without_boxes(lesion_data, tmp_path / "discs")
    embedder = Embedder.of(Backbone.from_pretrained(tiny_backbone))
    return Annotator(tmp_path / "discs", embedder, tmp_path / "cache"), boxes


def test_classes_take_turns_and_test_pictures_are_left_alone(annotator):
    own, _ = annotator
    assert [name.split("-")[0] for name in own.queue[:6]] == ["cold", "none", "warm"] * 2
    data = load_data(own.folder)
    splits = dict(zip(data["file_name"][:], data["split"][:], strict=True))
    assert "test" not in {splits[name] for name in own.queue} and len(own.queue) == 54
    by_class = [[splits[name] for name in own.queue if name.startswith(kind)] for kind in ("cold", "none", "warm")]
    assert all(found == sorted(found) and set(found) == {"train", "val"} for found in by_class), "train comes first"


def test_boxes_are_saved_and_the_picture_is_not_asked_for_again(annotator):
    own, _ = annotator
    first, second, third = own.queue[:3]
    own.add((0.1, 0.1, 0.3, 0.3))
    own.next()
    assert own.shown == second
    own.say_none()
    assert own.shown == third
    own.next()
    assert third == own.queue[-1] and own.shown not in (first, second, third), "what is left undone comes again"
    again = Annotator(own.folder, own.embedder)
    assert not {first, second} & set(again.queue)
    found = {row["file_name"]: row["boxes"] for row in load_data(own.folder)}
    assert np.allclose(found[first], [(0.1, 0.1, 0.3, 0.3)]) and found[second] == [] and found[third] is None
    assert own.undo() and own.shown == second and own.undo() and own.shown == first and not own.undo()


def test_a_fit_needs_some_boxes_and_then_shows_the_least_certain_first(annotator):
    own, boxes = annotator
    with pytest.raises(DataError, match="0 pictures have a box; a fit needs 5"):
        own.fit()
    while sum(map(bool, own.file.boxes.values())) < 12:
        if own.shown in boxes:
            own.add(boxes[own.shown])
        else:
            own.file.say_none(own.shown)
        own.next()
    localizer = own.fit()
    assert localizer.config.labels == ["cold", "warm"] and localizer.config.measured_on == "held-out training"
    own.next()
    certainties = [own.certainty(name) for name in own.queue[:24]]
    assert certainties == sorted(certainties)
    assert own.locate(own.shown).probability == certainties[0]


def test_a_folder_with_nothing_left_is_refused(lesion_data, tiny_backbone, tmp_path):
    embedder = Embedder.of(Backbone.from_pretrained(tiny_backbone))
    shutil.copytree(lesion_data, tmp_path / "d")
    with open(tmp_path / "d" / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["box_left"]]
    with open(tmp_path / "d" / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(DataError, match="annotated already"):
        Annotator(tmp_path / "d", embedder)


def test_a_click_counts_for_the_picture_that_was_seen(annotator):
    own, _ = annotator
    with gr.Blocks():
        page = AnnotatePage(own)
    first = own.shown
    corner, other = (SimpleNamespace(index=place) for place in ([5, 5], [40, 40]))
    page.go_on()  # of another tab
    answer = page.click(first, corner)
    assert answer[page.seen] == own.shown != first and "nothing was saved" in answer[page.said]
    assert "nothing was saved" in page.no_lesion(first)[page.said]
    assert not own.file.boxes and own.corner is None
    page.click(own.shown, corner)
    page.click(own.shown, other)
    assert list(own.file.boxes) == [own.shown]


def test_a_picture_that_cannot_be_read_is_passed_over_and_said(annotator, monkeypatch):
    own, _ = annotator
    with gr.Blocks():
        page = AnnotatePage(own)
    broken, whole = own.queue[1], own.read

    def read(name):
        if name == broken:
            raise ImageError("Damaged.")
        return whole(name)

    monkeypatch.setattr(own, "read", read)
    answer = page.go_on()
    assert answer[page.seen] == own.shown != broken and f"{broken} cannot be read" in answer[page.said]
    assert broken not in own.file.boxes
