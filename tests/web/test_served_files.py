"""A served picture is whole at every moment, one file for equal pictures, and expires with its component."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from medssl.web.served_files import served_png


@pytest.fixture
def component(tmp_path):
    made = gr.JSON()
    made.GRADIO_CACHE = str(tmp_path)
    return made


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))


def test_it_is_the_picture_under_the_given_name(component, picture, tmp_path):
    path = Path(served_png(component, picture, "overlay.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(picture))
    assert path.name == "overlay.png" and path.is_relative_to(tmp_path) and str(path) in component.temp_files
    deep = Image.fromarray(np.array([[0, 65535]], np.uint16))
    np.testing.assert_array_equal(np.asarray(Image.open(served_png(component, deep))), np.asarray(deep))


def test_an_equal_picture_is_the_same_file_kept_longer(component, picture):
    first = served_png(component, picture)
    os.utime(first, (0, 0))
    before = os.stat(first)
    assert served_png(component, picture.copy()) == first
    after = os.stat(first)
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size) and after.st_mtime > 0


def test_nobody_reads_half_a_picture_while_others_serve_it_again(component, picture):
    path = served_png(component, picture)
    size = os.stat(path).st_size

    def read(_):
        stated = os.stat(path).st_size
        return stated, len(Path(path).read_bytes())

    with ThreadPoolExecutor(4) as threads:
        serving = [threads.submit(served_png, component, picture) for _ in range(60)]
        seen = list(threads.map(read, range(2000)))
        assert {work.result() for work in serving} == {path}
    assert set(seen) == {(size, size)}
