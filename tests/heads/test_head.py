import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medssl.backbones.backbone import Backbone
from medssl.errors import BackboneError, BundleError
from medssl.heads.config import SCHEMA_VERSION
from medssl.heads.head import ClassificationHead
from tests.models import save_model

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return Backbone.from_pretrained(save_model("dinov2", tmp_path_factory.mktemp("dinov2")))


@pytest.fixture
def head(backbone):
    torch.manual_seed(0)
    return ClassificationHead.from_linear(
        torch.randn(3, 48),
        torch.randn(3),
        LABELS,
        backbone,
        temperature=1.7,
        thresholds={"conformal_probability": 0.2, "familiarity": 0.5},
        fitted_on={"data": "x", "seed": 3},
    )


def test_a_reloaded_head_predicts_bit_identically(head, tmp_path):
    head.save_pretrained(tmp_path)
    again = ClassificationHead.from_pretrained(tmp_path)
    embeddings = torch.randn(20, 48)
    assert torch.equal(head.probabilities(embeddings), again.probabilities(embeddings))
    assert head.predict(embeddings) == again.predict(embeddings)


def test_the_config_is_plain_json_with_everything_named(head, tmp_path, backbone):
    head.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["schema_version"] == SCHEMA_VERSION
    assert config["labels"] == LABELS and config["pooling"] == "cls" and config["embedding_dim"] == 48
    assert config["backbone"] == {"id": backbone.id, "revision": backbone.revision, "dimension": 48}
    assert config["preprocess"] == backbone.preprocess.to_dict()
    assert config["temperature"] == 1.7 and config["thresholds"]["conformal_probability"] == 0.2
    assert config["fitted_on"] == {"data": "x", "seed": 3}


def test_a_head_of_schema_1_loads_and_keeps_its_sets(head, tmp_path):
    head.save_pretrained(tmp_path)
    old = {"conformal_level": 0.9, "conformal_probability": 0.2, "familiarity": 0.5, "familiarity_neighbours": 7}
    edit_config(tmp_path, schema_version=1, thresholds=old)
    again = ClassificationHead.from_pretrained(tmp_path)
    probabilities = head.probabilities(torch.randn(20, 48))
    assert torch.equal(again.prediction_sets(probabilities), head.prediction_sets(probabilities))
    assert again.thresholds.familiarity_neighbors == 7 and "earlier version" in " ".join(again.thresholds.promise())


def test_predictions_equal_a_plain_softmax(head):
    embeddings = np.random.default_rng(0).normal(size=(5, 48)).astype(np.float32)
    logits = (embeddings @ head.linear.weight.numpy().T + head.linear.bias.numpy()) / 1.7
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for row, prediction in zip(expected, head.predict(embeddings), strict=True):
        np.testing.assert_allclose(list(prediction.probabilities.values()), row, rtol=1e-4)
        assert prediction.label == LABELS[row.argmax()]
        inside = {label for label, p in zip(LABELS, row, strict=True) if p >= 0.2} | {prediction.label}
        assert set(prediction.prediction_set) == inside


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "could not be loaded|does not fit"),
        (lambda folder: (folder / "model.safetensors").unlink(), "Only safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"junk"), "no safetensors file"),
        (lambda folder: edit_config(folder, schema_version=99), "schema_version 99.*reads 1 and 2"),
        (lambda folder: edit_config(folder, labels=["a", "b"]), "do not match"),
        (lambda folder: edit_config(folder, labels=["a", "a", "b"]), "different labels"),
        (lambda folder: edit_config(folder, labels=["a"]), "two or more"),
        (lambda folder: edit_config(folder, embedding_dim=7), "do not match"),
        (lambda folder: edit_config(folder, temperature=0), "temperature is 0"),
        (lambda folder: edit_config(folder, preprocess={"size": [0, 3]}), "preprocess"),
        (lambda folder: edit_config(folder, preprocess={"fit": "crop"}), "preprocess.*squash, pad"),
    ],
)
def test_a_broken_head_is_refused(head, tmp_path, break_it, message):
    head.save_pretrained(tmp_path)
    break_it(tmp_path)
    with pytest.raises(BundleError, match=message):
        ClassificationHead.from_pretrained(tmp_path)


def test_missing_extra_and_wrong_tensors_are_refused_even_with_strict_false(head, tmp_path):
    head.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    for tensors in (
        {"linear.weight": whole["linear.weight"]},
        {**whole, "more": torch.zeros(1)},
        {**whole, "linear.bias": torch.zeros(4)},
    ):
        save_file(tensors, path)
        with pytest.raises(BundleError, match="do not match"):
            ClassificationHead.from_pretrained(tmp_path, strict=False)
    save_file({**whole, "linear.bias": torch.tensor([0.0, float("nan"), 0.0])}, path)
    with pytest.raises(BundleError, match="finite"):
        ClassificationHead.from_pretrained(tmp_path)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_a_pickle_is_never_opened(head, tmp_path):
    head.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BundleError, match="safetensors"):
        ClassificationHead.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BundleError, match="no safetensors file"):
        ClassificationHead.from_pretrained(tmp_path)


def test_the_wrong_backbone_is_refused_with_both_values(head, tmp_path):
    other = Backbone.from_pretrained(save_model("dinov2", tmp_path / "other", seed=1))
    with pytest.raises(BundleError) as caught:
        head.check_backbone(other)
    assert head.backbone["revision"] in str(caught.value) and other.revision in str(caught.value)


def test_the_same_weights_in_another_folder_are_accepted(head, tmp_path):
    head.check_backbone(Backbone.from_pretrained(save_model("dinov2", tmp_path / "moved")))


def test_from_linear_checks_shapes_and_pooling(backbone, tmp_path):
    with pytest.raises(BundleError, match=r"need \[3, 96\]"):
        ClassificationHead.from_linear(torch.zeros(3, 48), torch.zeros(3), LABELS, backbone, pooling="cls+mean")
    convolutional = Backbone.from_pretrained(save_model("resnet", tmp_path))
    with pytest.raises(BackboneError, match="needs a CLS token"):
        ClassificationHead.from_linear(torch.zeros(3, 48), torch.zeros(3), LABELS, convolutional)


def test_config_that_is_not_json_is_refused(backbone):
    with pytest.raises(BundleError, match="plain JSON"):
        ClassificationHead.from_linear(
            torch.zeros(3, 48), torch.zeros(3), LABELS, backbone, fitted_on={1: "int keys come back as text"}
        )
    with pytest.raises(BundleError, match="plain JSON"):
        ClassificationHead.from_linear(
            torch.zeros(3, 48), torch.zeros(3), LABELS, backbone, thresholds={"x": np.float32(1)}
        )


def test_wrong_embedding_width(head):
    with pytest.raises(BundleError, match=r"\[2, 5\].*\[B, 48\]"):
        head.predict(np.zeros((2, 5), np.float32))
