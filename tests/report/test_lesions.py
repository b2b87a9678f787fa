"""Pictures of a lesion map, and the endpoint that gives it."""

import numpy as np
import pytest
from PIL import Image

from medssl.heads.lesion_map import LesionMap
from medssl.report.lesions import CONTOUR, LINE, lesion_picture, outlined


@pytest.fixture
def found():
    heatmap = np.zeros((100, 200), np.float32)
    heatmap[20:40, 50:90] = 0.8
    return LesionMap(heatmap, heatmap[::10, ::10], "", 0.8, (0.35, 0.3), (0.25, 0.2, 0.45, 0.4))


def test_the_box_lies_where_it_should_in_either_style(found):
    image = Image.new("RGB", (200, 100), (90, 90, 90))
    for style in ("color", CONTOUR):
        pixels = np.asarray(lesion_picture(image, found, 0.5, style))
        rows, columns = np.nonzero((pixels == LINE).all(axis=-1))
        scale = pixels.shape[1] / 200
        assert scale >= 2, "small pictures are enlarged"
        edges = np.array([columns.min(), rows.min(), columns.max(), rows.max()]) / scale
        assert np.allclose(edges, [50, 20, 90, 40], atol=1.5)
        assert (pixels[5, 5] == 90).all(), "where nothing is found the picture is as it was"


def test_opacity_shows_and_a_faint_map_is_faint(found):
    image = Image.new("RGB", (200, 100), (90, 90, 90))
    inside = (30 * 3, 70 * 3)

    def change(heatmap, opacity):
        pixels = np.asarray(lesion_picture(image, LesionMap(**{**vars(found), "heatmap": heatmap}), opacity))
        return np.abs(pixels[inside].astype(int) - 90).sum()

    assert change(found.heatmap, 0) == 0 < change(found.heatmap, 0.2) < change(found.heatmap, 0.9)
    assert change(found.heatmap / 50, 0.9) < change(found.heatmap, 0.9)


def test_an_outline_at_the_edge_stays_inside():
    assert outlined(Image.new("RGB", (30, 30)), (0, 0, 1, 1)).size == (540, 540)
