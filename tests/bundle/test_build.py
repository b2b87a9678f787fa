"""A build decodes each file once, whatever the head; its options are one value."""

import re
from functools import partial

import numpy as np
import pytest
from PIL import Image

from medssl.backbones import Backbone
from medssl.backbones.embedder import Embedder
from medssl.bundle import build_bundle
from medssl.bundle.build import BuildOptions
from medssl.bundle.bundle import library_name
from medssl.bundle.scan import scan_pictures
from medssl.data.load import load_data, open_data, read_record
from medssl.data.tasks import get_task
from medssl.errors import BundleError, DataError, ImageError
from medssl.explain.check import CheckPlan
from medssl.heads.choice import describe_choice
from medssl.images import image_id
from medssl.images.thumbnails import thumbnail
from tests.conftest import TINY_TASKS, UNCHOSEN
from tests.models import save_model


@pytest.mark.parametrize("head", ["linear", "patch", "auto"])
def test_each_file_is_decoded_once(head, tiny_data, tiny_backbone, tmp_path, monkeypatch):
    decoded = []

    def counting(record):
        decoded.append(record["file_name"])
        return read_record(record)

    for module in ("medssl.bundle.scan", "medssl.backbones.frames", "medssl.audit.fingerprint"):
        monkeypatch.setattr(f"{module}.read_record", counting)
    backbone = Backbone.from_pretrained(tiny_backbone)
    quiet = {"cache_dir": tmp_path, "progress": False, "explainer_seconds": 0}
    bundle = build_bundle(tiny_data["shapes"], "shapes", backbone, head=head, **quiet)
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
    quiet = {"cache_dir": tmp_path, "progress": False, **UNCHOSEN}
    options = BuildOptions(pooling="mean", **quiet)
    one = build_bundle(tiny_data["shapes"], "shapes", backbone, options=options)
    two = build_bundle(tiny_data["shapes"], "shapes", backbone, pooling="mean", **quiet)
    assert one.metrics == two.metrics and one.head.pooling == "mean"
    with pytest.raises(BundleError, match="no head of kind 'tree'.*linear, patch"):
        BuildOptions(head="tree")
    with pytest.raises(BundleError, match="explainer_seconds is -1"):
        BuildOptions(explainer_seconds=-1)


def test_only_broken_files_are_said(tmp_path, tiny_backbone):
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        for index in range(4):
            (tmp_path / "data" / label / f"{index}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="None of the 8 files"):
        build_bundle(tmp_path / "data", "x", str(tiny_backbone), cache_dir=tmp_path / "cache", progress=False)


def test_validation_chooses_and_says_so(tiny_data, tiny_backbone, tmp_path, monkeypatch):
    """Kind of head and explainer are chosen on validation alone; both stand in metrics and card, twice the same."""
    monkeypatch.setattr("medssl.bundle.build.CheckPlan", partial(CheckPlan, clock=lambda: 0.0))
    backbone = Backbone.from_pretrained(tiny_backbone)
    quiet = {"labels": TINY_TASKS["tints"], "cache_dir": tmp_path, "progress": False, "explainer_images": 2}
    one, two = (build_bundle(tiny_data["tints"], "tints", backbone, **quiet) for _ in range(2))
    assert one.metrics == two.metrics and one.card == two.card
    chosen = one.metrics["head_choice"]
    assert chosen["split"] == "val" and chosen["images"] == one.cases["split"].count("val")
    assert chosen["chosen"] == one.head.kind and describe_choice(chosen) in one.card
    check = one.metrics["explainer_check"]
    assert check["split"] == "val" and check["sampled"] == 2 and "vit_cx" in check["explainers"]
    assert one.explainer_choice.line("auto") in one.card and not one.explainer_choice.checked


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_a_patch_head_is_tried_where_it_can_be_and_its_tokens_are_few(family, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("medssl.bundle.build.MOST_TOKEN_BYTES", 1000)
    backbone = Backbone.from_pretrained(save_model(family, tmp_path / family))
    quiet = {"cache_dir": tmp_path, "progress": False, "explainer_seconds": 0}
    bundle = build_bundle(tiny_data["tints"], "tints", backbone, **quiet)
    reason = bundle.metrics["head_choice"]["patch_not_tried"]
    assert ("no patch tokens" if family == "resnet" else "patch tokens would take") in reason
    assert bundle.head.kind == "linear" and "explainer_check" not in bundle.metrics


def test_a_file_that_can_be_read_later_is_embedded_then(tiny_data, tiny_backbone, tmp_path, monkeypatch):
    dataset = load_data(tiny_data["shapes"]).select(range(6))
    embedder = Embedder.of(Backbone.from_pretrained(tiny_backbone))

    def vectors(name, read):
        monkeypatch.setattr("medssl.bundle.scan.read_record", read)
        (tmp_path / name).mkdir()
        scan = scan_pictures(dataset, embedder.preprocess, tmp_path / name, progress=False)
        return scan, embedder.vectors(dataset, tmp_path / "cache", False, scan.all_frames)

    def without_codec(record):
        if record["file_name"] == dataset[0]["file_name"]:
            raise ImageError("No codec.")
        return read_record(record)

    scan, first = vectors("first", without_codec)
    assert scan.readable.tolist() == [1, 2, 3, 4, 5]
    _, second = vectors("second", read_record)
    assert np.allclose(second, embedder.vectors(dataset, tmp_path / "other", False), atol=1e-6)
    assert not np.allclose(first[0], second[0], atol=1e-3)


@pytest.mark.parametrize("task", ["my task", "läsion", "肺", "a--b", "x" * 200])
def test_any_task_name_gives_a_library_that_can_be_named(task):
    names = {library_name(get_task(name, ["a", "b"]), {"id": "x", "revision": "y"}) for name in (task, task + "!")}
    assert len(names) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,150}", name) and "--" not in name for name in names)


def test_what_cannot_be_saved_or_measured_is_refused_before_the_work(tiny_data, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("medssl.bundle.build.build_in", lambda *_: pytest.fail("the work began"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    given = (tiny_data["shapes"], "shapes", str(tiny_backbone))
    with pytest.raises(BundleError, match="not empty and is no bundle"):
        build_bundle(*given, tmp_path / "full", progress=False)
    with pytest.raises(DataError, match="does not exist"):
        build_bundle(*given, others={"x": tmp_path / "nowhere"}, progress=False)


def test_declared_labels_are_the_tasks_in_their_order(tmp_path):
    labels = ["normal", "glaucoma", "diabetic_retinopathy", "cataract"]
    for label in labels:
        (tmp_path / label).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / label / "0.png")
    dataset, task = open_data(tmp_path, "eye", labels)
    assert list(task.labels) == dataset.features["label"].names == labels
