"""Drawn boxes on disk: whole or not at all, with a way back."""

import pytest

from medssl.data.boxes_file import BoxesFile
from medssl.errors import DataError

KNOWN = {"a.png": {}, "b.png": {}, 'odd, "name".png': {}}
BOX, OTHER = (0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 1.0, 1.0)


def test_what_was_drawn_is_read_again(tmp_path):
    file = BoxesFile(tmp_path, KNOWN)
    assert not file.path.exists(), "nothing is written before anything was drawn"
    file.add("a.png", BOX)
    file.add("a.png", OTHER)
    file.add('odd, "name".png', BOX)
    file.say_none("b.png")
    again = BoxesFile(tmp_path, KNOWN)
    assert again.boxes == {"a.png": [BOX, OTHER], 'odd, "name".png': [BOX], "b.png": []}
    again.add("b.png", BOX)
    assert BoxesFile(tmp_path, KNOWN).boxes["b.png"] == [BOX], "a box takes the place of 'no lesion'"


def test_every_change_can_be_taken_back(tmp_path):
    file = BoxesFile(tmp_path, KNOWN)
    states = [dict(file.boxes)]
    for change in (lambda: file.add("a.png", BOX), lambda: file.say_none("b.png"), lambda: file.add("a.png", OTHER)):
        change()
        states.append(dict(file.boxes))
    for name, before in zip(("a.png", "b.png", "a.png"), states[-2::-1], strict=True):
        assert file.undo() == name
        assert file.boxes == before == BoxesFile(tmp_path, KNOWN).boxes
    assert file.undo() is None


def test_a_write_that_fails_leaves_file_and_memory_as_they_were(tmp_path, monkeypatch):
    file = BoxesFile(tmp_path, KNOWN)
    file.add("a.png", BOX)
    before = file.path.read_bytes()

    def full(*_args, **_settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(DataError, match="boxes.csv cannot be written: No space left"):
        file.add("b.png", BOX)
    assert file.path.read_bytes() == before and file.boxes == {"a.png": [BOX]}
    with pytest.raises(DataError, match="cannot be written"):
        file.undo()
    assert file.boxes == {"a.png": [BOX]}
    monkeypatch.undo()
    assert file.undo() == "a.png"
