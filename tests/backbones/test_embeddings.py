import os
import time

import numpy as np
import pytest
import torch
from PIL import Image

from medssl.backbones.backbone import Backbone
from medssl.backbones.embeddings import embed, embed_images, fingerprint
from medssl.backbones.frames import DecodedFrames
from medssl.data.load import load_data
from medssl.errors import ImageError
from medssl.images.preprocess import Preprocess
from medssl.images.read import read_image
from tests import warm
from tests.models import save_model


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return Backbone.from_pretrained(save_model("dinov2", tmp_path_factory.mktemp("dinov2")), precision="fp32")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(20):
        place = tmp_path / "data" / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        size = (40 + index, 30 + 2 * index, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(place / f"{index:02d}.png")
    return tmp_path / "data"


def plain(dataset, backbone, preprocess, pooling):
    """One image after the other, by hand."""
    vectors = []
    for record in dataset:
        image = read_image(record["image"]["path"])
        height, width = preprocess.size
        array = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
        array = (array - np.array(preprocess.mean)) / np.array(preprocess.std)
        hidden = backbone.model(torch.tensor(array).permute(2, 0, 1)[None].float()).last_hidden_state
        vectors.append(hidden[0, 0] if pooling == "cls" else hidden[0, 1:].mean(0))
    return torch.stack(vectors).numpy()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_equals_a_plain_loop_in_the_data_sets_order(folder, backbone, tmp_path, pooling):
    dataset = load_data(folder)
    done = embed(dataset, backbone, pooling=pooling, cache_dir=tmp_path / "cache", progress=False)
    expected = plain(dataset, backbone, backbone.preprocess, pooling)
    np.testing.assert_allclose(np.array(done["embedding"]), expected, atol=2e-4)
    assert done["file_name"] == dataset["file_name"]
    assert done.features["embedding"].length == 48 and done.features["embedding"].feature.dtype == "float32"


def test_the_cache_is_used_and_only_for_the_same_thing(folder, backbone, tmp_path, monkeypatch):
    dataset = load_data(folder)
    first = embed(dataset, backbone, cache_dir=tmp_path, progress=False)

    def never(*_):
        raise AssertionError("encoded again")

    monkeypatch.setattr(backbone, "embed", never)
    again = embed(dataset, backbone, cache_dir=tmp_path, progress=False)
    assert again["embedding"] == first["embedding"]
    for change in ({"pooling": "mean"}, {"preprocess": Preprocess(size=(28, 28))}):
        with pytest.raises(AssertionError, match="encoded again"):
            embed(dataset, backbone, cache_dir=tmp_path, progress=False, **change)
    with pytest.raises(AssertionError, match="encoded again"):
        embed(dataset.select(range(5)), backbone, cache_dir=tmp_path, progress=False)


def test_the_fingerprint_follows_file_backbone_and_settings(folder, backbone, tmp_path):
    dataset = load_data(folder)
    base = fingerprint(dataset, backbone, backbone.preprocess, "cls")
    assert base == fingerprint(load_data(folder), backbone, backbone.preprocess, "cls")
    other = Backbone.from_pretrained(save_model("dinov2", tmp_path / "m", seed=1), precision="fp32")
    changed = {
        fingerprint(dataset, other, backbone.preprocess, "cls"),
        fingerprint(dataset, backbone, backbone.preprocess, "mean"),
        fingerprint(dataset, backbone, Preprocess(size=(28, 28)), "cls"),
        fingerprint(dataset.select(range(19)), backbone, backbone.preprocess, "cls"),
    }
    Image.new("RGB", (50, 50)).save(dataset[0]["image"]["path"])
    changed.add(fingerprint(dataset, backbone, backbone.preprocess, "cls"))
    assert base not in changed and len(changed) == 5


def test_an_unreadable_file_is_named(folder, backbone, tmp_path):
    dataset = load_data(folder)
    with open(dataset[3]["image"]["path"], "wb") as stream:
        stream.write(b"not an image")
    with pytest.raises(ImageError):
        embed(dataset, backbone, cache_dir=tmp_path, progress=False)


SLOW = """
import sys, time
import medssl.backbones.embeddings as embeddings
from medssl.backbones.backbone import Backbone
from medssl.data.load import load_data
embeddings.PART_IMAGES = 4
backbone = Backbone.from_pretrained(sys.argv[1], precision="fp32")
plain = backbone.embed
backbone.embed = lambda *a: (time.sleep(0.3), plain(*a))[1]
embeddings.embed(load_data(sys.argv[2]), backbone, cache_dir=sys.argv[3], progress=False)
"""


def test_a_killed_run_goes_on_where_it_was(folder, backbone, tmp_path, monkeypatch):
    import medssl.backbones.embeddings

    process = warm.start(["-c", SLOW, backbone.id, folder, tmp_path / "cache"])
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "cache").rglob("*.part"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = {path.name for path in (tmp_path / "cache").rglob("*.part")}
    assert 2 <= len(kept) < 5, "killed in the middle"
    monkeypatch.setattr(medssl.backbones.embeddings, "PART_IMAGES", 4)
    counted, plain_embed = [], backbone.embed
    monkeypatch.setattr(backbone, "embed", lambda p, pooling: (counted.append(len(p)), plain_embed(p, pooling))[1])
    dataset = load_data(folder)
    done = embed(dataset, backbone, cache_dir=tmp_path / "cache", progress=False)
    assert sum(counted) == 20 - 4 * len(kept)
    whole = embed_images(DecodedFrames(dataset, backbone.preprocess), backbone, backbone.preprocess, "cls")
    np.testing.assert_allclose(np.array(done["embedding"]), whole, atol=1e-5)


def test_a_damaged_part_is_said_and_computed_again(folder, backbone, tmp_path, caplog):
    dataset = load_data(folder)
    first = embed(dataset, backbone, cache_dir=tmp_path / "cache", progress=False)
    (part,) = (tmp_path / "cache").rglob("*.part")
    whole = part.read_bytes()
    for damaged in (whole[:-9], whole[:200] + bytes([whole[200] ^ 4]) + whole[201:], b""):
        part.write_bytes(damaged)
        again = embed(dataset, backbone, cache_dir=tmp_path / "cache", progress=False)
        assert np.array_equal(np.array(first["embedding"]), np.array(again["embedding"]))
        assert "damaged and are computed again" in caplog.text and part.read_bytes() == whole
        caplog.clear()


def test_the_cache_knows_a_picture_by_its_bytes(folder, backbone, tmp_path):
    """Not by path, size and time: a file exchanged for another of the same size and time is another picture."""
    before = fingerprint(load_data(folder), backbone, backbone.preprocess, "cls")
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert fingerprint(load_data(moved), backbone, backbone.preprocess, "cls") == before
    path = next(moved.rglob("*.png"))
    facts, data = path.stat(), bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert fingerprint(load_data(moved), backbone, backbone.preprocess, "cls") != before
