"""Frames kept on disk are the frames of decoded images."""

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from medssl.backbones.frames import DecodedFrames, FrameFile, SelectedFrames, pixel_batches
from medssl.data.load import load_data
from medssl.errors import DataError
from medssl.images.preprocess import Preprocess

PREPROCESS = Preprocess(size=(28, 42))


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    random = np.random.default_rng(0)
    for index in range(11):
        place = tmp_path / "data" / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (30, 20 + index, 3), np.uint8)).save(place / f"{index:02d}.png")
    return load_data(tmp_path / "data")


def test_kept_frames_equal_decoded_ones(dataset, tmp_path):
    decoded = DecodedFrames(dataset, PREPROCESS)
    kept = FrameFile(tmp_path / "frames", len(dataset), PREPROCESS)
    for row in reversed(range(len(dataset))):
        kept.write(row, decoded.frame(row))
    assert len(kept) == len(decoded) == 11
    for row in range(len(dataset)):
        np.testing.assert_array_equal(kept.frame(row), decoded.frame(row))
    some = SelectedFrames(SelectedFrames(kept, np.array([9, 3, 5])), np.array([2, 0]))
    np.testing.assert_array_equal(some.frame(0), decoded.frame(5))
    np.testing.assert_array_equal(some.frame(1), decoded.frame(9))
    assert len(some) == 2


@pytest.mark.parametrize("overlap", [False, True])
def test_batches_equal_a_plain_loop(dataset, overlap):
    decoded = DecodedFrames(dataset, PREPROCESS)
    batches = list(pixel_batches(decoded, PREPROCESS, 4, overlap))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    plain = np.stack([PREPROCESS.normalize(decoded.frame(row)) for row in range(11)])
    np.testing.assert_array_equal(np.concatenate(batches), plain)


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("medssl.backbones.frames.shutil.disk_usage", lambda _: type("U", (), {"free": 1000})())
    with pytest.raises(DataError, match=r"1000 images need .* GB.*MEDSSL_CACHE"):
        FrameFile(tmp_path / "frames", 1000, PREPROCESS)
    assert not list(tmp_path.iterdir())
