import time
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

import medssl.backbones.patch_tokens
from medssl.backbones.backbone import Backbone
from medssl.backbones.patch_tokens import patch_tokens
from medssl.data.load import load_data
from medssl.errors import BackboneError, DataError
from medssl.images.preprocess import Preprocess
from tests import warm
from tests.models import PREFIX_TOKENS, save_model

DEEP = sorted(set(PREFIX_TOKENS) - {"swin"})


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return Backbone.from_pretrained(save_model("dinov2", tmp_path_factory.mktemp("dinov2")), precision="fp32")


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(20):
        place = tmp_path / "data" / "ab"[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40 + index, 30 + 2 * index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{index:02d}.png")
    return load_data(tmp_path / "data")


@pytest.mark.parametrize("family", DEEP)
def test_reading_gives_what_transformers_calls_hidden_states(family, tmp_path):
    backbone = Backbone.from_pretrained(save_model(family, tmp_path))
    side = backbone.preprocess.size[0]
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    found = backbone.reading(2, None, 1).forward(pixels, maps=True)
    extra = {"noise": torch.arange(16).expand(2, -1)} if family == "mae" else {}
    states = backbone.model(pixel_values=pixels, output_hidden_states=True, **extra).hidden_states
    assert sorted(found.layers) == [1, 2]
    for layer, patches in found.layers.items():
        assert patches.shape == (2, 4, 4, 48)
        torch.testing.assert_close(patches.flatten(1, 2), states[layer][:, PREFIX_TOKENS[family] :])
    plain = backbone.forward(pixels, maps=True)
    assert torch.equal(plain.patches, found.patches) and torch.equal(plain.maps, found.maps) and not plain.layers


def test_reading_leaves_the_backbone_as_it_was(backbone):
    view = backbone.reading(1)
    assert backbone.layers == () and view.layers == (1,) and view.model is backbone.model
    assert backbone.reading(None) is backbone and view.reading(1) is view and view.reading().layers == ()
    pixels = torch.zeros(1, 3, 56, 56)
    before = [len(module._forward_hooks) for module in backbone.model.modules()]
    view.forward(pixels)
    with pytest.raises(BackboneError, match="do not fit"):
        view.forward(torch.zeros(1, 3, 57, 56))
    assert [len(module._forward_hooks) for module in backbone.model.modules()] == before
    np.testing.assert_array_equal(view.embed(pixels, "cls"), backbone.embed(pixels, "cls"))


def test_a_block_there_is_not_is_refused(backbone, tmp_path):
    with pytest.raises(BackboneError, match="no block 3.*1 to 2"):
        backbone.reading(3)
    with pytest.raises(BackboneError, match="no block 0.*1 to 2"):
        backbone.reading(0)
    convolutional = Backbone.from_pretrained(save_model("resnet", tmp_path))
    with pytest.raises(BackboneError, match="Allowed: None"):
        convolutional.reading(1)


def test_threads_do_not_read_each_others_blocks(backbone):
    from concurrent.futures import ThreadPoolExecutor

    view = backbone.reading(1)
    inputs = [torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(seed)) for seed in range(24)]
    alone = [view.forward(pixels).layers[1] for pixels in inputs]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda pixels: view.forward(pixels, maps=True).layers[1], inputs))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other)


def test_tokens_are_those_of_the_encoding_in_the_data_sets_order(dataset, backbone, tmp_path):
    found = patch_tokens(dataset, backbone, None, (None, 1), tmp_path / "cache", progress=False)
    assert list(found) == [None, 1]
    for layer, tokens in found.items():
        assert isinstance(tokens, np.memmap) and tokens.dtype == np.float16 and tokens.shape == (20, 16, 48)
        for index in (0, 7, 19):
            image = Image.open(dataset[index]["image"]["path"]).convert("RGB")
            one = backbone.reading(layer).encode([image])
            patches = one.patches if layer is None else one.layers[layer]
            np.testing.assert_allclose(tokens[index], patches[0].flatten(0, 1).numpy(), rtol=2e-3, atol=2e-3)


def test_a_convolutional_backbone_has_final_patches(dataset, tmp_path):
    backbone = Backbone.from_pretrained(save_model("convnext", tmp_path / "convnext"), precision="fp32")
    tokens = patch_tokens(dataset, backbone, None, (None,), tmp_path / "cache", progress=False)[None]
    assert tokens.ndim == 3 and tokens.shape[::2] == (20, backbone.dimension)


def test_the_cache_is_used_layer_by_layer_and_only_for_the_same_thing(dataset, backbone, tmp_path, monkeypatch):
    first = patch_tokens(dataset, backbone, None, (None,), tmp_path, progress=False)
    counted, plain = [], medssl.backbones.patch_tokens.encode_part
    monkeypatch.setattr(medssl.backbones.patch_tokens, "encode_part", lambda *a: (counted.append(a[3]), plain(*a))[1])
    again = patch_tokens(dataset, backbone, None, (None,), tmp_path, progress=False)
    assert counted == [] and np.array_equal(first[None], again[None])
    patch_tokens(dataset, backbone, None, (None, 1), tmp_path, progress=False)
    assert counted == [(1,)], "only the layer that was not there"
    patch_tokens(dataset, backbone, Preprocess(size=(28, 28)), (None,), tmp_path, progress=False)
    patch_tokens(dataset.select(range(5)), backbone, None, (None,), tmp_path, progress=False)
    assert len(counted) == 3


SLOW = """
import sys, time
import medssl.backbones.patch_tokens as patches
from medssl.backbones.backbone import Backbone
from medssl.data.load import load_data
patches.PART_IMAGES = 4
backbone = Backbone.from_pretrained(sys.argv[1], precision="fp32")
plain = patches.encode_part
patches.encode_part = lambda *a: (time.sleep(0.5), plain(*a))[1]
patches.patch_tokens(load_data(sys.argv[2]), backbone, None, (None, 1), sys.argv[3], progress=False)
"""


def test_a_killed_run_goes_on_where_it_was_and_is_bit_equal(dataset, backbone, tmp_path, monkeypatch):
    process = warm.start(["-c", SLOW, backbone.id, tmp_path / "data", tmp_path / "cache"])
    deadline = time.monotonic() + 90

    def done():
        records = list((tmp_path / "cache").rglob("*.done"))
        return min((int(record.read_text()) for record in records), default=0) if len(records) == 2 else 0

    while done() < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = done()
    assert 8 <= kept < 20, "killed in the middle"
    monkeypatch.setattr(medssl.backbones.patch_tokens, "PART_IMAGES", 4)
    counted, plain = [], medssl.backbones.patch_tokens.encode_part
    monkeypatch.setattr(
        medssl.backbones.patch_tokens, "encode_part", lambda *a: (counted.append(len(a[0])), plain(*a))[1]
    )
    resumed = patch_tokens(dataset, backbone, None, (None, 1), tmp_path / "cache", progress=False)
    assert sum(counted) == 20 - kept
    whole = patch_tokens(dataset, backbone, None, (None, 1), tmp_path / "other", progress=False)
    for layer in (None, 1):
        assert np.array_equal(resumed[layer], whole[layer])


def test_a_file_cut_short_is_made_again(dataset, backbone, tmp_path):
    first = np.array(patch_tokens(dataset, backbone, None, (None,), tmp_path, progress=False)[None])
    path = next(tmp_path.rglob("final.npy"))
    with path.open("r+b") as stream:
        stream.truncate(1000)
    again = patch_tokens(dataset, backbone, None, (None,), tmp_path, progress=False)[None]
    assert np.array_equal(first, again)


def test_a_full_disk_is_told_before_anything_is_encoded(dataset, backbone, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(medssl.backbones.patch_tokens.shutil, "disk_usage", lambda _: usage(10, 9, 1))
    monkeypatch.setattr(medssl.backbones.patch_tokens, "encode_part", lambda *_: pytest.fail("encoded"))
    with pytest.raises(DataError, match="20 images .16 patches of 48 numbers, 2 layers.*MEDSSL_CACHE"):
        patch_tokens(dataset, backbone, None, (None, 1), tmp_path, progress=False)


def test_tokens_beyond_half_precision_are_refused():
    with pytest.raises(DataError, match="65504"):
        medssl.backbones.patch_tokens.read_layer(torch.full((1, 2, 2, 3), 1e6))
