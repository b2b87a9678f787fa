"""A build decodes each file once, whatever the head; its options are one value."""

import numpy as np
import pytest

from medssl.backbones import Backbone
from medssl.bundle import build_bundle
from medssl.bundle.build import BuildOptions
from medssl.bundle.scan import scan_pictures
from medssl.data.load import load_data, read_record
from medssl.errors import BundleError, DataError
from medssl.images import image_id
from medssl.images.thumbnails import thumbnail


@pytest.mark.parametrize("head", ["linear", "patch"])
def test_each_file_is_decoded_once(head, tiny_data, tiny_backbone, tmp_path, monkeypatch):
    decoded = []

    def counting(record):
        decoded.append(record["file_name"])
        return read_record(record)

    for module in ("medssl.bundle.scan", "medssl.backbones.frames", "medssl.audit.fingerprint"):
        monkeypatch.setattr(f"{module}.read_record", counting)
    backbone = Backbone.from_pretrained(tiny_backbone)
    bundle = build_bundle(tiny_data["shapes"], "shapes", backbone, cache_dir=tmp_path, progress=False, head=head)
    assert sorted(decoded) == sorted(load_data(tiny_data["shapes"])["file_name"])
    assert bundle.metrics["images"] == bundle.cases["split"].count("test")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("build-")]


def test_the_scan_keeps_what_a_plain_loop_finds(tiny_data, tiny_backbone, tmp_path):
    dataset, preprocess = load_data(tiny_data["tints"]), Backbone.from_pretrained(tiny_backbone).preprocess
    scan = scan_pictures(dataset, preprocess, tmp_path, 40, progress=False)
    assert list(scan.readable) == list(range(len(dataset)))
    for row in (0, 17, 59):
        image = read_record(dataset[row])
        assert scan.pictures[row]["id"] == scan.fingerprints[row].id == image_id(image)
        np.testing.assert_array_equal(scan.frames.frame(row), preprocess.resize(image))
        kept = scan.pictures.with_format("arrow")[row]["image"][0].as_py()
        assert kept == {"bytes": thumbnail(image, 40), "path": None}


def test_options_and_settings_say_the_same(tiny_data, tiny_backbone, tmp_path):
    backbone = Backbone.from_pretrained(tiny_backbone)
    options = BuildOptions(pooling="mean", cache_dir=tmp_path, progress=False)
    one = build_bundle(tiny_data["shapes"], "shapes", backbone, options=options)
    two = build_bundle(tiny_data["shapes"], "shapes", backbone, pooling="mean", cache_dir=tmp_path, progress=False)
    assert one.metrics == two.metrics and one.head.pooling == "mean"
    with pytest.raises(BundleError, match="no head of kind 'tree'.*linear, patch"):
        BuildOptions(head="tree")


def test_only_broken_files_are_said(tmp_path, tiny_backbone):
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        for index in range(4):
            (tmp_path / "data" / label / f"{index}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="None of the 8 files"):
        build_bundle(tmp_path / "data", "x", str(tiny_backbone), cache_dir=tmp_path / "cache", progress=False)
