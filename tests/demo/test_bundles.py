"""The bundles that come with medssl: small, synthetic by their own word, whole, and the same at every build."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medssl import Backbone, Bundle
from medssl.data.tasks import TASKS
from medssl.demo.bundles import (
    FOLDER,
    PLANS,
    SEED,
    SHIPPED_BACKBONE,
    THUMBNAIL_SIDE,
    DemoPlan,
    build_demo_bundle,
    shipped_bundles,
)
from medssl.demo.drawing import SIDE
from medssl.demo.phantom import DRAWERS, draw_phantom
from medssl.images.read import image_id

LIMIT = 10 * 10**6


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_they_are_all_there_and_small_enough():
    assert [folder.name for folder in shipped_bundles()] == list(DRAWERS)
    assert all(size(folder) <= LIMIT for folder in shipped_bundles())
    assert size(FOLDER.parent / SHIPPED_BACKBONE) <= LIMIT


def test_the_backbone_loads_by_its_name_and_says_what_it_saw():
    backbone = Backbone.from_pretrained(SHIPPED_BACKBONE)
    assert backbone.id == SHIPPED_BACKBONE and backbone.revision.startswith("sha256:")
    facts = json.loads((FOLDER.parent / SHIPPED_BACKBONE / "pretraining.json").read_text())
    card = (FOLDER.parent / SHIPPED_BACKBONE / "README.md").read_text()
    assert facts["method"] == "distill" and facts["teacher"]["id"] in card and "Not measured" not in card
    assert not any(f"/{word}/" in json.dumps(facts) + card for word in ("tmp", "home", "root", "mnt"))


@pytest.mark.parametrize("task", DRAWERS)
def test_each_answers_for_a_phantom_it_has_not_seen_and_says_it_is_synthetic(task):
    bundle = Bundle.load(FOLDER / task)
    assert bundle.task == TASKS[task] and bundle.task.synthetic and "synthetic" in bundle.card
    assert bundle.head.backbone["id"] == SHIPPED_BACKBONE
    label = bundle.labels[0]
    analysis = bundle.analyze(Image.fromarray(draw_phantom(task, label, 0, seed=99).image))
    assert analysis.prediction.familiar and len(analysis.cases) == 6
    assert analysis.explanation.heatmap.shape == (224, 224)
    assert not analysis.explanation.settings["capped"], "the default makes as many masks as the published method"
    assert bundle.metrics["classification"]["accuracy"]["value"] > 0.85
    assert bundle.metrics["retrieval"]["precision_at_5"]["value"] > 0.75
    assert max(found["balanced_accuracy"] for found in bundle.metrics["audit"]["shortcuts"]) < 0.6


@pytest.mark.parametrize("task", DRAWERS)
def test_their_cases_are_what_the_code_draws_and_embeds_today(task):
    bundle = Bundle.load(FOLDER / task)
    ids = bundle.cases["id"][:]
    for label in bundle.labels:
        picture = Image.fromarray(draw_phantom(task, label, 1, seed=SEED).image)
        assert image_id(picture) in ids, "run scripts/demo.py bundles"
        stored = np.array(bundle.cases[ids.index(image_id(picture))]["embedding"])
        encoding = bundle.backbone.encode([picture], bundle.head.preprocess)
        # On another processor sums are rounded in another order, so that there the last digits may differ.
        assert np.allclose(encoding.pool(bundle.head.pooling)[0], stored, atol=2e-3)


@pytest.mark.parametrize("task", DRAWERS)
def test_the_example_is_as_large_as_it_was_drawn_and_answered_rightly(task):
    bundle = Bundle.load(FOLDER / task)
    sides, row = [image.size for image in bundle.cases["image"][:]], bundle.cases["split"][:].index("test")
    assert sides[row] == (SIDE, SIDE) and {*sides[:row], *sides[row + 1 :]} == {(THUMBNAIL_SIDE, THUMBNAIL_SIDE)}
    encoding = bundle.backbone.encode([bundle.cases[row]["image"]], bundle.head.preprocess)
    own, stored = np.asarray(encoding.pool(bundle.head.pooling)[0]), np.array(bundle.cases[row]["embedding"])
    assert own @ stored / np.linalg.norm(own) / np.linalg.norm(stored) > 0.999
    found = bundle.analyze(bundle.cases[row]["image"], explain=False).prediction
    assert found.label == bundle.labels[bundle.cases[row]["label"]] and found.familiar


def test_two_builds_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("medssl.demo.bundles.EXPLAINER_IMAGES", 2)
    monkeypatch.setitem(PLANS, "lung-demo", DemoPlan(side=98, per_label=20))
    first, second = (tmp_path / place / "lung-demo" for place in ("first", "second"))
    for place in (first, second):
        build_demo_bundle("lung-demo", place, progress=False)
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(names) >= 5
    assert names == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
