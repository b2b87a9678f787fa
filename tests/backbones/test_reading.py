import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel

from medssl.backbones.backbone import Backbone
from medssl.backbones.reading import (
    POOLINGS,
    Part,
    Reading,
    candidate_readings,
    last_blocks,
    resolve_reading,
    union,
)
from medssl.errors import BackboneError
from tests.backbones.test_backbone import pictures
from tests.models import FAMILIES, PREFIX_TOKENS, save_model

DEEP = ("dinov2", "dinov2-registers", "vit", "deit")
MANY = "cls2+cls3+mean5+cls+mean"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint of six blocks of each family with CLS, and those of the families without."""
    made = {}
    for family in (*DEEP, "resnet", "swin", "convnext"):
        config = FAMILIES[family][1]
        before = getattr(config, "num_hidden_layers", None)
        if family in DEEP:
            config.num_hidden_layers = 6
        made[family] = save_model(family, tmp_path_factory.mktemp(family))
        if family in DEEP:
            config.num_hidden_layers = before
    return made


def plain(folder, family, pixels, pooling):
    """Each part by hand: the states after every block as transformers hands them out, through the model's own norm."""
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        said = model(pixels, output_hidden_states=True)
        vectors = []
        for part in pooling.split("+"):
            token, block = part.rstrip("0123456789"), part.lstrip("clsmean")
            states = model.layernorm(said.hidden_states[int(block)]) if block else said.last_hidden_state
            prefix = PREFIX_TOKENS[family]
            vectors.append(states[:, 0] if token == "cls" else states[:, prefix:].mean(1))
    return torch.cat(vectors, 1).numpy()


@pytest.mark.parametrize("family", DEEP)
def test_blocks_are_read_as_a_plain_forward_says(family, folders):
    backbone = Backbone.from_pretrained(folders[family], precision="fp32")
    pixels = backbone.pixels(pictures(3))
    expected = plain(folders[family], family, pixels, MANY)
    np.testing.assert_allclose(backbone.embed(pixels, MANY), expected, atol=2e-5)
    encoding = backbone.pooled(MANY).encode(pictures(3))
    np.testing.assert_allclose(encoding.pool(MANY).numpy(), expected, atol=2e-5)
    assert backbone.embedding_dim(MANY) == expected.shape[1] == 5 * backbone.dimension
    # the last block through the norm is the final token
    np.testing.assert_array_equal(backbone.embed(pixels, "cls6"), backbone.embed(pixels, "cls"))


@pytest.mark.parametrize("family", DEEP)
def test_dinov2s_protocol_is_cls_of_the_last_four_blocks_then_the_mean(family, folders):
    backbone = Backbone.from_pretrained(folders[family], precision="fp32")
    pixels = backbone.pixels(pictures(2))
    reading = backbone.resolve_reading("cls-last4+mean")
    assert reading == last_blocks(6, True) and reading.pooling == "cls3+cls4+cls5+cls+mean"
    expected = plain(folders[family], family, pixels, "cls3+cls4+cls5+cls6+mean6")
    np.testing.assert_allclose(backbone.embed(pixels, reading.pooling), expected, atol=2e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_todays_poolings_are_bit_for_bit_what_they_were(pooling, folders):
    backbone = Backbone.from_pretrained(folders["deit"], precision="fp32")
    pixels = backbone.pixels(pictures(3))
    with torch.no_grad():
        hidden = backbone.model(pixels).last_hidden_state
    grid = hidden[:, 2:].unflatten(1, (4, 4))
    parts = {"cls": hidden[:, 0], "mean": grid.mean(dim=(1, 2))}
    expected = torch.cat([parts[name] for name in pooling.split("+")], dim=-1).numpy()
    np.testing.assert_array_equal(backbone.embed(pixels, pooling), expected)


def test_one_forward_gives_every_candidate(folders, monkeypatch):
    backbone = Backbone.from_pretrained(folders["dinov2"], precision="fp32")
    pixels = backbone.pixels(pictures(3))
    readings = candidate_readings(backbone.has_cls, backbone.depth)
    expected = {name: backbone.embed(pixels, reading.pooling) for name, reading in readings.items()}
    wider, counted = union(readings.values()), []
    forward = backbone.model.forward
    monkeypatch.setattr(backbone.model, "forward", lambda **given: (counted.append(1), forward(**given))[1])
    together = backbone.embed(pixels, wider.pooling)
    assert counted == [1] and len(readings) == 8
    for name, reading in readings.items():
        found = together[:, reading.columns(wider, backbone.dimension)]
        np.testing.assert_allclose(found, expected[name], atol=1e-6)


def test_bf16_stays_close(folders):
    exact, fast = (Backbone.from_pretrained(folders["dinov2"], precision=name) for name in ("fp32", "bf16"))
    pixels = exact.pixels(pictures(3))
    a, b = exact.embed(pixels, MANY), fast.embed(pixels, MANY)
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.99


def test_gradients_reach_the_pixels_through_earlier_blocks(folders):
    backbone = Backbone.from_pretrained(folders["vit"], precision="fp32").pooled("cls3+mean2")
    pixels = backbone.pixels(pictures(1)).clone().requires_grad_(True)
    backbone.forward(pixels).pool("cls3+mean2").square().sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert all(not module._forward_hooks for module in backbone.model.modules())


@pytest.mark.parametrize("family", ["resnet", "swin", "convnext"])
def test_models_without_cls_have_their_mean_only_and_say_so(family, folders):
    backbone = Backbone.from_pretrained(folders[family], precision="fp32")
    assert backbone.depth == 0 and list(candidate_readings(backbone.has_cls, backbone.depth)) == ["mean"]
    with pytest.raises(BackboneError, match="'cls\\+mean' needs a CLS token.*Use pooling 'mean'"):
        backbone.embedding_dim("cls+mean")
    with pytest.raises(BackboneError, match="'mean3' reads block 3; this backbone has final tokens only"):
        backbone.embedding_dim("mean3")
    with pytest.raises(BackboneError, match="By name on this backbone: mean"):
        backbone.resolve_reading("cls-last4")


def test_a_block_that_there_is_not_and_an_encoding_without_it_are_refused(folders):
    backbone = Backbone.from_pretrained(folders["dinov2"], precision="fp32")
    with pytest.raises(BackboneError, match="'cls7\\+cls' reads block 7; this backbone has blocks 1 to 6"):
        backbone.pooled("cls7+cls")
    with pytest.raises(BackboneError, match=r"reads block 3.*Encode with backbone.pooled\('cls3'\)"):
        backbone.encode(pictures(1)).pool("cls3")


parts = st.builds(Part, st.sampled_from(["cls", "mean"]), st.none() | st.integers(1, 999))
readings = st.builds(Reading, st.lists(parts, min_size=1, max_size=6, unique=True).map(tuple))


@given(readings)
def test_the_text_form_comes_back(reading):
    assert Reading.parse(reading.pooling) == reading


@pytest.mark.parametrize(
    "text", ["", "max", "cls+", "cls0", "cls+cls", "CLS", "cls 9", "cls9.5", "cls-last4", "cls1234"]
)
def test_any_other_text_is_refused(text):
    with pytest.raises(BackboneError, match="Allowed: cls, mean, cls\\+mean"):
        Reading.parse(text)


def test_a_space_that_there_is_not_is_refused():
    with pytest.raises(BackboneError, match="no space 'round'.*plain, standardized, whitened"):
        Reading.parse("cls", "round")


def test_candidates_go_from_the_plainest_on():
    found = candidate_readings(True, 12)
    lengths = [len(reading.parts) for reading in found.values()]
    assert lengths == sorted(lengths) and next(iter(found)) == "cls"
    assert {"cls", "mean", "cls+mean", "cls11", "cls9", "cls-last4", "cls-last4+mean"} <= set(found)
    assert list(candidate_readings(True, 2)) == list(POOLINGS)
    assert resolve_reading("cls-last4", True, 12).pooling == "cls9+cls10+cls11+cls"


def test_columns_find_the_parts_of_a_wider_embedding():
    wider, reading = Reading.parse("cls1+cls+mean"), Reading.parse("mean+cls1")
    assert reading.columns(wider, 2).tolist() == [4, 5, 0, 1]
    with pytest.raises(BackboneError, match="holds no mean2"):
        Reading.parse("mean2").columns(wider, 2)
