"""A bundle whose head reads several blocks and whose cases are compared in a space of their own, end to end."""

import json
import shutil

import numpy as np
import pytest
import torch

from medssl.backbones.backbone import Backbone
from medssl.bundle.build import build_bundle
from medssl.bundle.bundle import Bundle
from medssl.bundle.evaluate import evaluate_bundle
from medssl.bundle.measure import part_of
from medssl.errors import BackboneError, BundleError
from medssl.explain.registry import make_explainer
from medssl.hub.pull import SPACE_FILE
from medssl.images.read import read_image
from medssl.library.space import in_space
from tests.conftest import TINY_TASKS, UNCHOSEN
from tests.models import FAMILIES, save_model

DEEP = "cls3+cls4+cls5+cls+mean"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    config = FAMILIES["dinov2"][1]
    before, config.num_hidden_layers = config.num_hidden_layers, 6
    folder = save_model("dinov2", tmp_path_factory.mktemp("deep"))
    config.num_hidden_layers = before
    return Backbone.from_pretrained(folder, precision="fp32")


def build(data, backbone, out, **settings):
    labels = TINY_TASKS["shapes"]
    return build_bundle(data, "shapes", backbone, out, labels=labels, progress=False, **UNCHOSEN, **settings)


@pytest.fixture(scope="module")
def folder(tiny_data, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "shapes"
    build(tiny_data["shapes"], backbone, out, pooling="cls-last4+mean", case_space="whitened")
    return out


@pytest.fixture(scope="module")
def bundle(folder, backbone):
    return Bundle.load(folder, backbone=backbone)


def test_the_head_reads_blocks_and_says_so(bundle, folder):
    stored = json.loads((folder / "head" / "config.json").read_text("utf-8"))
    assert (stored["pooling"], stored["case_space"]) == (DEEP, "whitened")
    assert bundle.head.embedding_dim == 5 * bundle.backbone.dimension == bundle.space.width
    assert bundle.metrics["reading_choice"] == {"asked": "cls-last4+mean", "chosen": "cls-last4+mean", "pooling": DEEP}
    assert {"precision_at_1", "precision_at_5", "map_at_10"} == set(bundle.metrics["retrieval_plain"])
    assert f"head/{SPACE_FILE}" in json.loads((folder / "manifest.json").read_text("utf-8"))["sha256"]
    assert "within-class covariance" in bundle.card and DEEP in bundle.card


def test_an_opened_picture_is_what_the_build_embedded(bundle, tiny_data, shapes_image):
    analyzer = bundle.open(shapes_image)
    row = bundle.cases["id"][:].index(analyzer.picture.id)
    stored = np.asarray(bundle.cases[row]["embedding"], np.float32)
    np.testing.assert_allclose(analyzer.embedding, stored, atol=1e-4)
    probabilities = bundle.head.probabilities(torch.from_numpy(stored)[None])[0]
    found = list(analyzer.prediction.probabilities.values())
    np.testing.assert_allclose(found, probabilities.numpy(), atol=1e-4)


def test_score_likeness_and_familiarity_are_cosines_of_the_spaces_that_are_named(bundle, shapes_image):
    analyzer = bundle.open(shapes_image)
    case = analyzer.cases(3)[0]
    own, other = (bundle.space.apply(vector) for vector in (analyzer.embedding, case.embedding))
    assert case.score == pytest.approx(own @ other / np.linalg.norm(own) / np.linalg.norm(other), abs=1e-5)
    likeness = analyzer.likeness(case, "vit_cx")
    assert likeness.explanation.probability == pytest.approx(case.score, abs=1e-4)
    train = part_of(bundle.cases, "train").embeddings
    query = analyzer.embedding
    cosines = train @ query / np.linalg.norm(train, axis=1) / np.linalg.norm(query)
    assert analyzer.prediction.familiarity == pytest.approx(np.sort(cosines)[-5:].mean(), abs=1e-5)


def test_every_explainer_explains_a_head_that_reads_blocks(bundle, shapes_image):
    image = read_image(shapes_image)
    encoding = bundle.encode(image)
    for method in bundle.explainers:
        options = {"max_masks": 2} if method.startswith("vit_cx") else {}
        found = make_explainer(method, bundle.backbone, bundle.head).explain(image, encoding=encoding, **options)
        assert found.heatmap.shape == image.size[::-1] and np.isfinite(found.heatmap).all(), method
    assert {"vit_cx", "grad_cam", "gradient_rollout", "attention_rollout"} <= set(bundle.explainers)
    # a plain backbone will do: the explainer asks it for the head's blocks
    given = bundle.backbone, bundle.backbone.pooled("cls")
    first, again = (make_explainer("grad_cam", backbone, bundle.head) for backbone in given)
    np.testing.assert_array_equal(first.explain(image).heatmap, again.explain(image).heatmap)


def test_evaluating_it_gives_the_builds_figures(bundle, tiny_data, tmp_path):
    found = evaluate_bundle(bundle, tiny_data["shapes"], cache_dir=tmp_path, progress=False)
    for section in ("retrieval", "retrieval_plain"):
        for name, figure in found[section].items():
            assert figure["value"] == pytest.approx(bundle.metrics[section][name]["value"], abs=1e-6)


def test_saving_it_again_changes_no_bit_of_the_map(bundle, folder, tmp_path):
    bundle.save(tmp_path / "again")
    name = f"head/{SPACE_FILE}"
    assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_bundle_without_its_map_or_with_another_is_refused(bundle, folder, backbone, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "head" / SPACE_FILE).unlink()
    with pytest.raises(BundleError, match=SPACE_FILE):
        Bundle.load(broken, backbone=backbone)
    (broken / "manifest.json").unlink()
    with pytest.raises(BundleError, match="compared in the whitened space, but .* is not there"):
        Bundle.load(broken, backbone=backbone)
    with pytest.raises(BundleError, match="compared in the whitened space; the map given is of the plain one"):
        Bundle(bundle.head, bundle.cases, backbone)


def test_auto_embeds_once_and_says_what_it_tried(tiny_data, backbone, monkeypatch, tmp_path):
    images, forward = [], backbone.model.forward
    monkeypatch.setattr(
        backbone.model, "forward", lambda **given: (images.append(len(given["pixel_values"])), forward(**given))[1]
    )
    bundle = build(tiny_data["shapes"], backbone, None, cache_dir=tmp_path)
    assert len(bundle.cases) <= sum(images) <= len(bundle.cases) + 2  # and what finds the final norm
    record = bundle.metrics["reading_choice"]
    assert record["asked"] == "auto" and "cls-last4+mean" in record["tried"] and len(record["tried"]) == 8
    assert bundle.head.pooling == record["pooling"] == record["tried"][record["chosen"]]["pooling"]
    width = len(bundle.cases[0]["embedding"])
    assert width == bundle.head.embedding_dim == backbone.embedding_dim(record["pooling"])
    assert set(bundle.metrics["space_choice"]["tried"]) == {"plain", "standardized", "whitened"}
    assert bundle.head.reading.space == bundle.metrics["space_choice"]["chosen"]
    assert "Reading: " in bundle.card and "Similar cases are compared in" in bundle.card
    embeddings = part_of(bundle.cases, "train").embeddings
    assert in_space(bundle.space, embeddings).shape == embeddings.shape


def test_what_cannot_be_is_refused(tiny_data, backbone):
    with pytest.raises(BackboneError, match="reads block 9; this backbone has blocks 1 to 6"):
        build(tiny_data["shapes"], backbone, None, pooling="cls9")
    with pytest.raises(BundleError, match="no space 'round'.*auto, plain"):
        build(tiny_data["shapes"], backbone, None, case_space="round")
