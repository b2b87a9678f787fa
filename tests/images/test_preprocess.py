"""The way into the model frame and back: nothing cropped, nothing shifted."""

import json

import numpy as np
import pytest
from PIL import Image

from medssl.images.preprocess import INTERPOLATIONS, Preprocess

SIZES = [(100, 100), (300, 200), (200, 300), (57, 31), (1000, 3), (3, 1000), (1, 1), (224, 224), (640, 479)]


@pytest.mark.parametrize("width, height", SIZES)
@pytest.mark.parametrize("size", [(224, 224), (96, 160), (14, 14)])
def test_the_content_box_lies_in_the_frame_and_keeps_the_aspect(size, width, height):
    assert Preprocess(size=size).content_box(width, height) == (0, 0, size[1], size[0])
    left, top, right, bottom = Preprocess(size=size, fit="pad").content_box(width, height)
    assert 0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]
    assert right - left == size[1] or bottom - top == size[0], "one side is filled"
    assert abs(left - (size[1] - right)) <= 1 and abs(top - (size[0] - bottom)) <= 1, "centred"
    scale = min(size[1] / width, size[0] / height)
    assert right - left == pytest.approx(max(1, width * scale), abs=0.51)
    assert bottom - top == pytest.approx(max(1, height * scale), abs=0.51)


@pytest.mark.parametrize("fit", ["squash", "pad"])
@pytest.mark.parametrize("width, height", [(300, 200), (200, 300), (250, 250)])
def test_nothing_is_cropped(fit, width, height):
    """A mark in each corner of the image is still there, in the corner of its content."""
    preprocess = Preprocess(size=(96, 160), fit=fit)
    left, top, right, bottom = preprocess.content_box(width, height)
    corners = {
        (0, 0): (top, left),
        (0, 1): (top, right - 1),
        (1, 0): (bottom - 1, left),
        (1, 1): (bottom - 1, right - 1),
    }
    for (low, far), (row, column) in corners.items():
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[height - 12 if low else 0 :, width - 12 if far else 0 :][:12, :12] = 255
        frame = preprocess.resize(Image.fromarray(pixels))
        assert frame.shape == (96, 160, 3) and frame.dtype == np.uint8
        assert frame[row, column].min() > 200


def test_the_padding_is_the_mean_and_becomes_zero():
    preprocess = Preprocess(size=(60, 100), fit="pad")
    frame = preprocess.resize(Image.new("RGB", (50, 50), (255, 0, 0)))
    assert (frame[:, 20:80] == (255, 0, 0)).all()
    assert (frame[:, :20] == frame[0, 0]).all() and (frame[:, 80:] == frame[0, 0]).all()
    assert np.abs(preprocess.normalize(frame)[:, :, :20]).max() < 0.5 / 255 / 0.22 + 1e-6


def test_padding_with_a_mean_outside_0_to_1_does_not_wrap():
    frame = Preprocess(size=(4, 8), fit="pad", mean=(1.5, -0.5, 0.5)).resize(Image.new("RGB", (4, 4)))
    assert frame[0, 0].tolist() == [255, 0, 128]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_an_image_of_the_frames_size_goes_through_untouched(interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    for fit in ("squash", "pad"):
        preprocess = Preprocess(size=(48, 80), fit=fit, interpolation=interpolation)
        assert np.array_equal(preprocess.resize(Image.fromarray(pixels)), pixels)


def test_normalize_is_the_formula_also_for_batches():
    preprocess = Preprocess(size=(6, 9), mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
    frames = np.random.default_rng(1).integers(0, 256, (2, 6, 9, 3), dtype=np.uint8)
    expected = ((frames / 255 - preprocess.mean) / preprocess.std).transpose(0, 3, 1, 2)
    found = preprocess.normalize(frames)
    assert found.dtype == np.float32 and found.shape == (2, 3, 6, 9) and found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(preprocess.normalize(frames[1]), found[1])


@pytest.mark.parametrize("width, height", [(160, 60), (60, 96), (160, 96), (31, 96)])
def test_pad_maps_a_heatmap_back_exactly(width, height):
    """Where the content is not scaled, the way back is a cut: value by value."""
    preprocess = Preprocess(size=(96, 160), fit="pad")
    left, top, right, bottom = preprocess.content_box(width, height)
    assert (right - left, bottom - top) == (width, height)
    heatmap = np.full((96, 160), 1e9, np.float32)
    inside = np.random.default_rng(2).random((height, width), dtype=np.float32)
    heatmap[top:bottom, left:right] = inside
    np.testing.assert_array_equal(preprocess.to_image_frame(heatmap, width, height), inside)


@pytest.mark.parametrize("fit", ["squash", "pad"])
@pytest.mark.parametrize("width, height", [*SIZES, (97, 640)])
def test_the_way_back_has_the_images_size_and_no_padding(fit, width, height):
    preprocess = Preprocess(size=(96, 160), fit=fit)
    left, top, right, bottom = preprocess.content_box(width, height)
    heatmap = np.full((96, 160), 1e9, np.float32)
    heatmap[top:bottom, left:right] = 0.25
    found = preprocess.to_image_frame(heatmap, width, height)
    assert found.shape == (height, width) and found.dtype == np.float32
    np.testing.assert_allclose(found, 0.25, rtol=1e-6)


@pytest.mark.parametrize("fit", ["squash", "pad"])
@pytest.mark.parametrize("width, height", [(400, 300), (300, 400), (61, 47), (512, 128)])
def test_a_spot_comes_back_to_where_it_was(fit, width, height):
    """A bright spot's centre of mass, sent in as an image and back as a heatmap, does not move."""
    preprocess = Preprocess(size=(112, 112), fit=fit, interpolation="bilinear")
    x, y = 0.3 * width, 0.7 * height
    columns, rows = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    spot = np.exp(-(((columns - x) / (width / 14)) ** 2 + ((rows - y) / (height / 14)) ** 2))
    pixels = np.repeat((spot * 255).round().astype(np.uint8)[..., None], 3, -1)
    heatmap = preprocess.resize(Image.fromarray(pixels))[..., 0].astype(np.float32)
    left, top, right, bottom = preprocess.content_box(width, height)
    outside = np.ones(heatmap.shape, bool)
    outside[top:bottom, left:right] = False
    heatmap[outside] = 0
    found = preprocess.to_image_frame(heatmap, width, height)
    assert (found * columns).sum() / found.sum() == pytest.approx(x, abs=0.004 * width)
    assert (found * rows).sum() / found.sum() == pytest.approx(y, abs=0.004 * height)


def test_json_round_trip():
    for preprocess in (Preprocess(), Preprocess((96, 160), "pad", (0.5,) * 3, (0.25,) * 3, "nearest")):
        again = Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict())))
        assert again == preprocess and hash(again) == hash(preprocess)
        assert isinstance(again.size, tuple) and isinstance(again.size[0], int)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"size": (0, 224)}, "size"),
        ({"size": (224,)}, "size"),
        ({"size": (-1, -1)}, "size"),
        ({"fit": "crop"}, "squash, pad"),
        ({"interpolation": "magic"}, "bicubic"),
        ({"mean": (0.5,)}, "three"),
        ({"std": (0.1, 0.1, 0.0)}, "std above 0"),
        ({"std": (0.1, 0.1, float("nan"))}, "finite"),
        ({"mean": (0.1, float("inf"), 0.1)}, "finite"),
    ],
)
def test_bad_values_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Preprocess(**fields)
