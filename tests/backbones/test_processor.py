"""What a checkpoint says of how an image enters is read, and refused by file and field where it cannot be."""

import json
import shutil
from pathlib import Path

import pytest

from medssl.backbones import Backbone
from medssl.errors import BackboneError

GOOD = {
    "do_center_crop": False,
    "size": {"height": 56, "width": 28},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.1],
    "resample": 2,
}


@pytest.fixture
def folder(tiny_backbone, tmp_path) -> Path:
    folder = Path(shutil.copytree(tiny_backbone, tmp_path / "backbone"))
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink(missing_ok=True)
    return folder


def write(folder: Path, content: object, name: str = "preprocessor_config.json") -> None:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_every_field_is_read(folder):
    write(folder, GOOD)
    found = Backbone.from_pretrained(folder).preprocess
    assert found.size == (56, 28) and found.interpolation == "bilinear"
    assert found.mean == (0.5, 0.4, 0.3) and found.std == (0.2, 0.2, 0.1)


def test_one_that_is_nested_comes_first(folder):
    write(folder, {**GOOD, "size": 28})
    write(folder, {"image_processor": GOOD}, "processor_config.json")
    assert Backbone.from_pretrained(folder).preprocess.size == (56, 28)
    write(folder, {"processor_class": "Some"}, "processor_config.json")
    assert Backbone.from_pretrained(folder).preprocess.size == (28, 28)


@pytest.mark.parametrize(
    ("change", "size"),
    [
        ({"size": {"shortest_edge": 28}}, (28, 28)),
        ({"size": [28, 56]}, (28, 56)),
        ({"do_center_crop": True, "crop_size": {"height": 28, "width": 28}}, (28, 28)),
        ({"do_center_crop": None, "crop_size": 28}, (56, 28)),
    ],
)
def test_every_way_to_write_a_size(folder, change, size):
    write(folder, {**GOOD, **change})
    assert Backbone.from_pretrained(folder).preprocess.size == size


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", "big"),
        ("size", {"height": "a", "width": 28}),
        ("size", [28, 28, 28]),
        ("size", -28),
        ("size", 10**7),
        ("crop_size", {"height": 1e3}),
        ("do_center_crop", "maybe"),
        ("image_mean", "x"),
        ("image_mean", [0.5]),
        ("image_mean", [float("nan")] * 3),
        ("image_std", [0, 0, 0]),
        ("resample", 9),
        ("resample", []),
    ],
)
def test_a_field_that_cannot_be_is_refused_by_file_and_field(folder, field, value):
    write(folder, {**GOOD, field: value})
    with pytest.raises(BackboneError, match=rf"preprocessor_config\.json does not fit: {field}") as refused:
        Backbone.from_pretrained(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "[" * 100_000])
def test_a_damaged_file_is_refused_and_never_passed_over(folder, text):
    write(folder, text)
    with pytest.raises(BackboneError, match=r"preprocessor_config\.json (cannot be read|holds no)"):
        Backbone.from_pretrained(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("image_size", "big"), ("hidden_size", None), ("id2label", 3), ("patch_size", 0), ("layer_norm_eps", "x")],
)
def test_a_config_whose_fields_cannot_be_is_a_sentence(folder, field, value):
    config = json.loads((folder / "config.json").read_text())
    write(folder, {**config, field: value}, "config.json")
    with pytest.raises(BackboneError, match="could not be loaded") as refused:
        Backbone.from_pretrained(folder)
    assert "\n" not in str(refused.value)
