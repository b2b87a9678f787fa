"""The maps of bundles side by side: a picture with a row a bundle, in the colours of labels and sources."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageColor

from medssl.bundle.bundle import Bundle
from medssl.report.case_map import COLORS
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))
import case_maps  # noqa: E402


@pytest.mark.parametrize("count", [1, 2])
def test_a_row_a_bundle_colored_by_label_and_by_source(tiny_bundle_folders, tmp_path, monkeypatch, count):
    folders, out = list(tiny_bundle_folders.values())[:count], tmp_path / "maps.png"
    given = ["case_maps.py", "--bundle", *map(str, folders), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", given)
    assert case_maps.main() == 0
    picture = np.asarray(Image.open(out).convert("RGB"))
    height, width = picture.shape[:2]
    assert height / width == pytest.approx(count / 2, rel=0.02)
    labels = len(Bundle.load(folders[0]).labels)
    left, right = picture[: height // count, : width // 2], picture[: height // count, width // 2 :]
    drawn = [[(side == ImageColor.getrgb(color)).all(-1).any() for color in COLORS[:labels]] for side in (left, right)]
    assert drawn[0] == [True] * labels, "a colour a label"
    assert drawn[1] == [True] + [False] * (labels - 1), "one source"


def test_what_is_no_bundle_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["case_maps.py", "--bundle", str(tmp_path / "none"), "--out", "x.png"])
    assert case_maps.main() == 2 and "none" in capsys.readouterr().err
