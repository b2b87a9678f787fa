import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medssl.backbones.backbone import Backbone, Encoding
from medssl.backbones.embedder import Embedder
from medssl.bundle.build import build_bundle
from medssl.bundle.bundle import Bundle, suggest_task
from medssl.bundle.measure import image_probabilities, measure, part_of
from medssl.data.labelled import Labelled
from medssl.data.tasks import Task
from medssl.errors import BackboneError, BundleError, DataError
from medssl.heads.config import SCHEMA_VERSION
from medssl.heads.fit_linear import fit_head
from medssl.heads.fit_patch import (
    LabelledTokens,
    PatchFit,
    Tokens,
    choose,
    default_layers,
    fit_patch_head,
    fit_patch_linear,
)
from medssl.heads.head import ClassificationHead
from medssl.heads.patch import PatchHead, load_head, pool_evidence
from tests.conftest import TINY_TASKS, sample
from tests.models import save_model

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return Backbone.from_pretrained(save_model("dinov2", tmp_path_factory.mktemp("dinov2")))


def make(backbone, **settings):
    torch.manual_seed(0)
    settings = {"share": 0.2, "temperature": 1.7, "thresholds": {"conformal_probability": 0.2}, **settings}
    return PatchHead.from_patch_linear(torch.randn(3, 48) / 7, torch.randn(3), LABELS, backbone, **settings)


@pytest.fixture
def head(backbone):
    return make(backbone)


def encoding(backbone, count=4, seed=0):
    with torch.no_grad():
        return backbone.forward(torch.randn(count, 3, 56, 56, generator=torch.Generator().manual_seed(seed)))


def slow_probabilities(head, patches):
    """Patch by patch, class by class, in plain float64 loops."""
    weight, bias = head.patch_linear.weight.double().numpy(), head.patch_linear.bias.double().numpy()
    rows = []
    for image in patches.double().numpy():
        evidence = []
        for token in image.reshape(-1, image.shape[-1]):
            logits = [(w @ token + b) / head.temperature for w, b in zip(weight, bias, strict=True)]
            evidence.append([logit - sum(logits) / len(logits) for logit in logits])
        keep = max(1, round(head.share * len(evidence)))
        pooled = [sum(sorted((row[c] for row in evidence), reverse=True)[:keep]) / keep for c in range(len(bias))]
        total = sum(np.exp(pooled))
        rows.append([np.exp(value) / total for value in pooled])
    return np.array(rows)


@pytest.mark.parametrize("share", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("layer", [None, 1])
def test_classify_equals_plain_loops(backbone, share, layer):
    head = make(backbone, share=share, layer=layer)
    found = encoding(backbone.reading(layer))
    patches = found.patches if layer is None else found.layers[layer]
    np.testing.assert_allclose(head.classify(found).numpy(), slow_probabilities(head, patches), atol=1e-5)


def test_the_evidence_map_adds_up_to_the_log_odds(head, backbone):
    found = encoding(backbone)
    log_odds = head(found.patches.flatten(1, 2))
    for index in range(3):
        mapped = head.evidence_map(found, index)
        assert mapped.shape == (4, 4, 4)
        strongest = mapped.flatten(1).sort(dim=1, descending=True).values[:, :3]
        assert torch.allclose(strongest.mean(dim=1), log_odds[:, index], atol=1e-6)
    assert torch.allclose(sum(head.evidence_map(found, index) for index in range(3)), torch.zeros(4, 4, 4), atol=1e-5)


def test_predictions_follow_the_probabilities(head, backbone):
    found = encoding(backbone)
    for row, prediction in zip(head.classify(found), head.predict_encoding(found), strict=True):
        assert list(prediction.probabilities.values()) == row.tolist()
        assert prediction.label == LABELS[int(row.argmax())]
        inside = {label for label, p in zip(LABELS, row, strict=True) if p >= 0.2} | {prediction.label}
        assert set(prediction.prediction_set) == inside


def test_a_linear_head_predicts_an_encoding_as_its_embedding(backbone):
    linear = ClassificationHead.from_linear(torch.randn(3, 48), torch.randn(3), LABELS, backbone)
    found = encoding(backbone)
    assert linear.predict_encoding(found) == linear.predict(found.pool("cls"))


def test_gradients_flow_to_the_pixels(backbone):
    head = make(backbone, layer=1)
    pixels = torch.randn(1, 3, 56, 56, requires_grad=True)
    head.classify(backbone.reading(1).forward(pixels))[0, 1].backward()
    assert pixels.grad.abs().sum() > 0


def test_pooling_is_each_class_by_itself():
    evidence = torch.tensor([[[1.0, 9.0], [5.0, 2.0], [3.0, 4.0], [0.0, 0.0]]])
    assert pool_evidence(evidence, 0.5).tolist() == [[4.0, 6.5]]
    assert pool_evidence(evidence, 1e-9).tolist() == [[5.0, 9.0]]


@pytest.mark.parametrize("layer", [None, 2])
def test_a_reloaded_head_predicts_bit_identically(backbone, tmp_path, layer):
    head = make(backbone, layer=layer, fitted_on={"data": "x"})
    head.save_pretrained(tmp_path)
    again = load_head(tmp_path)
    found = encoding(backbone.reading(layer))
    assert isinstance(again, PatchHead) and again.layer == layer and again.share == head.share
    assert again.predict_encoding(found) == head.predict_encoding(found)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["kind"] == "patch" and config["layer"] == layer and config["pooling"] == "cls"
    assert (
        config["schema_version"] == SCHEMA_VERSION
        and config["embedding_dim"] == 48
        and config["fitted_on"] == {"data": "x"}
    )


def test_load_head_opens_a_linear_head_whose_config_names_no_kind(backbone, tmp_path):
    linear = ClassificationHead.from_linear(torch.randn(3, 48), torch.randn(3), LABELS, backbone)
    linear.save_pretrained(tmp_path)
    assert "kind" not in json.loads((tmp_path / "config.json").read_text())
    assert isinstance(load_head(tmp_path), ClassificationHead)


def test_one_kind_never_passes_for_the_other(head, backbone, tmp_path):
    head.save_pretrained(tmp_path / "patch")
    with pytest.raises(BundleError, match="'patch'.*'linear'"):
        ClassificationHead.from_pretrained(tmp_path / "patch")
    linear = ClassificationHead.from_linear(torch.randn(3, 48), torch.randn(3), LABELS, backbone)
    linear.save_pretrained(tmp_path / "linear")
    with pytest.raises(BundleError, match="'linear'.*'patch'"):
        PatchHead.from_pretrained(tmp_path / "linear")
    # Not by its weights either, for a medssl that knows no kinds.
    assert not set(load_file(tmp_path / "patch/model.safetensors")) & set(
        load_file(tmp_path / "linear/model.safetensors")
    )


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "could not be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "could not be loaded"),
        (lambda folder: (folder / "config.json").write_text("[]"), "could not be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "Only safetensors"),
        (lambda folder: edit_config(folder, kind="forest"), "'forest'.*linear, patch"),
        (lambda folder: edit_config(folder, schema_version=9), "schema_version 9.*reads 1 and 2"),
        (lambda folder: edit_config(folder, labels=["a", "b"]), "do not match"),
        (lambda folder: edit_config(folder, share=0), "share is 0"),
        (lambda folder: edit_config(folder, share="all"), "share is 'all'"),
        (lambda folder: edit_config(folder, layer=0), "layer is 0"),
        (lambda folder: edit_config(folder, layer=1.5), "layer is 1.5"),
        (lambda folder: edit_config(folder, backbone={"id": "x"}), r"config.*backbone\.revision"),
        (lambda folder: edit_config(folder, temperature=-1), "temperature is -1"),
    ],
)
def test_a_broken_head_is_refused(head, tmp_path, break_it, message):
    head.save_pretrained(tmp_path)
    break_it(tmp_path)
    with pytest.raises(BundleError, match=message):
        load_head(tmp_path)


def test_missing_and_foreign_tensors_are_refused_even_with_strict_false(head, tmp_path):
    head.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    for tensors in (
        {"patch_linear.weight": whole["patch_linear.weight"]},
        {**whole, "more": torch.zeros(1)},
        {"linear.weight": whole["patch_linear.weight"], "linear.bias": whole["patch_linear.bias"]},
    ):
        save_file(tensors, path)
        with pytest.raises(BundleError, match="do not match"):
            load_head(tmp_path, strict=False)


def test_the_wrong_backbone_is_refused_with_both_values(head, backbone, tmp_path):
    other = Backbone.from_pretrained(save_model("dinov2", tmp_path / "other", seed=1))
    with pytest.raises(BundleError) as caught:
        head.check_backbone(other)
    assert head.backbone["revision"] in str(caught.value) and other.revision in str(caught.value)
    with pytest.raises(BackboneError, match="no block 3.*1 to 2"):
        make(backbone, layer=3)


def test_an_encoding_without_the_heads_block_is_refused(backbone):
    head = make(backbone, layer=2)
    with pytest.raises(BundleError, match=r"block 2.*final patches only.*reading\(2\)"):
        head.classify(encoding(backbone))
    with pytest.raises(BundleError, match="block 2.*1.*reading"):
        head.classify(encoding(backbone.reading(1)))


def test_from_patch_linear_checks_shapes(backbone):
    with pytest.raises(BundleError, match=r"need \[3, 48\]"):
        PatchHead.from_patch_linear(torch.zeros(3, 96), torch.zeros(3), LABELS, backbone, share=0.1)


def planted(count, seed, patches=16, width=48, classes=3):
    """Tokens whose class is one strong patch, taken back from the other patches: every image's mean tells nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    tokens = rng.normal(size=(count, patches, width))
    tokens -= tokens.mean(axis=1, keepdims=True)
    tokens += 0.3 * rng.normal(size=(count, 1, width))
    for image, label in enumerate(labels):
        place = rng.integers(patches)
        tokens[image, :, label] -= 8 / (patches - 1)
        tokens[image, place, label] += 8 + 8 / (patches - 1)
    groups = np.array([f"{seed}-{index}" for index in range(count)])
    return tokens.astype(np.float16), Labelled(tokens.mean(axis=1).astype(np.float32), labels, groups)


def fit(backbone, seed=0, layers=(None,)):
    tokens, train = planted(450, 0)
    more, validation = planted(90, 1)
    rows = range(450), range(450, 540)
    stored = dict.fromkeys(layers, np.concatenate([tokens, more]))
    task = Task("toy", "Toy", tuple(LABELS), "none")
    sides = [LabelledTokens(images, stored, own) for images, own in zip((train, validation), rows, strict=True)]
    return fit_patch_head(*sides, task, Embedder.of(backbone, pooling="mean"), {"data": "toy"}, seed, False)


def as_encoding(tokens):
    return Encoding(None, torch.from_numpy(tokens).float().unflatten(1, (4, 4)))


def test_a_planted_local_signal_is_learnt_and_found_where_the_mean_knows_nothing(backbone):
    tokens, test = planted(150, 2)
    head = fit(backbone)
    right = head.classify(as_encoding(tokens)).argmax(dim=1).numpy() == test.labels
    assert right.mean() > 0.9 and head.share < 1
    maps = torch.stack([head.evidence_map(as_encoding(tokens), index) for index in range(3)]).flatten(2)
    spots = [int(maps[label, image].argmax()) for image, label in enumerate(test.labels)]
    planted_at = [int(tokens[image, :, label].argmax()) for image, label in enumerate(test.labels)]
    found = [np.equal(spots, planted_at)[test.labels == label].mean() for label in range(3)]
    # One class may be told by the lack of the others' patches.
    assert sorted(found)[1] > 0.9
    train, validation = planted(450, 0)[1], planted(90, 1)[1]
    task = Task("toy", "Toy", tuple(LABELS), "none")
    linear = fit_head(train, validation, task, Embedder.of(backbone, pooling="mean"))
    guessed = linear.probabilities(torch.from_numpy(test.embeddings)).argmax(dim=1).numpy()
    assert (guessed == test.labels).mean() < 0.5


def test_fitting_is_seeded_and_says_what_it_chose(backbone):
    one, two, other = fit(backbone), fit(backbone), fit(backbone, seed=1)
    assert torch.equal(one.patch_linear.weight, two.patch_linear.weight) and one.temperature == two.temperature
    assert not torch.equal(one.patch_linear.weight, other.patch_linear.weight)
    assert one.fitted_on["penalty"] > 0 and one.fitted_on["train_images"] == 450
    assert one.fitted_on["data"] == "toy" and f"final, {one.share:g}" in one.fitted_on["validation_losses"]
    assert set(one.thresholds.to_dict()) >= {"adaptive", "familiarity"}


def test_what_validation_cannot_tell_apart_is_decided_for_the_most_local():
    def make_fit(share, *losses):
        return PatchFit(None, share, 0.1, torch.zeros(3, 4), torch.zeros(3), np.zeros((4, 3)), np.array(losses))

    best, close = make_fit(1.0, 0.2, 0.4, 0.6, 0.8), make_fit(0.05, 0.6, 0.6, 0.6, 0.6)
    closer, far = make_fit(0.05, 0.5, 0.6, 0.6, 0.6), make_fit(0.02, 0.7, 0.7, 0.7, 0.7)
    # The best loss is 0.5 with a standard error of 0.129.
    assert choose([best, close, closer, far]) is closer
    assert choose([best, far]) is best


def test_every_share_is_fitted_as_if_alone(monkeypatch):
    import medssl.heads.fit_patch as training

    tokens, part = planted(60, 0)
    whole = Tokens(tokens, np.arange(60))
    weight, bias = fit_patch_linear(whole, part.labels, 3, False)
    monkeypatch.setattr(training, "SHARES", training.SHARES[2:3])
    monkeypatch.setattr(training, "PENALTIES", training.PENALTIES[1:2])
    alone, alone_bias = fit_patch_linear(whole, part.labels, 3, False)
    torch.testing.assert_close(alone[0, 0], weight[2, 1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(alone_bias[0, 0], bias[2, 1], rtol=1e-3, atol=1e-4)


def test_unfit_input_is_refused(backbone):
    tokens, train = planted(30, 0)
    task = Task("toy", "Toy", (*LABELS, "d"), "none")
    embedder = Embedder.of(backbone, pooling="mean")

    def fit_on(layers, task, rows=30):
        side = LabelledTokens(train, layers, range(rows))
        fit_patch_head(side, side, task, embedder, progress=False)

    with pytest.raises(DataError, match="train split has no image of d"):
        fit_on({None: tokens}, task)
    task = Task("toy", "Toy", tuple(LABELS), "none")
    with pytest.raises(DataError, match="30 images and 29 rows"):
        fit_on({None: tokens}, task, rows=29)
    with pytest.raises(DataError, match=r"\[images, patches, 48\]"):
        fit_on({None: tokens[..., :5]}, task)
    with pytest.raises(DataError, match="at least one layer"):
        fit_on({}, task)


def test_default_layers_are_those_there_are(backbone, tmp_path):
    assert default_layers(backbone) == (None, 1)
    assert default_layers(Backbone.from_pretrained(save_model("resnet", tmp_path))) == (None,)


@pytest.fixture(scope="module")
def built(tiny_data, tiny_backbone, tmp_path_factory):
    place = tmp_path_factory.mktemp("patch")
    backbone = Backbone.from_pretrained(tiny_backbone)
    bundle = build_bundle(
        tiny_data["tints"],
        "tints",
        backbone,
        place / "tints",
        labels=TINY_TASKS["tints"],
        cache_dir=place,
        progress=False,
        head="patch",
        explainer_seconds=0,
    )
    return bundle, place / "tints"


def test_build_save_load_analyse(built, tiny_data):
    bundle, folder = built
    again = Bundle.load(folder)
    assert isinstance(again.head, PatchHead)
    path = sample(tiny_data["tints"], "jade")
    one, two = bundle.analyze(path, explain=False), again.analyze(path, explain=False)
    assert one.prediction == two.prediction and one.prediction.familiarity is not None
    assert [case.id for case in one.cases] == [case.id for case in two.cases]
    assert bundle.metrics["classification"]["accuracy"]["value"] > 0.5
    assert "looks at patches" in again.card and "penalty" in again.card


def test_the_figures_are_of_the_patches_not_of_the_embeddings(built, tiny_data):
    from medssl.backbones.embeddings import embed
    from medssl.data.load import load_data

    bundle, folder = built
    dataset = load_data(tiny_data["tints"], labels=TINY_TASKS["tints"])
    dataset = dataset.select([index for index, split in enumerate(dataset["split"]) if split == "test"])
    dataset = embed(
        dataset, bundle.backbone, bundle.head.preprocess, bundle.head.pooling, folder.parent, progress=False
    )
    probabilities = image_probabilities(dataset, bundle.head, bundle.backbone, progress=False)
    with pytest.raises(BundleError, match="probabilities="):
        measure(bundle, part_of(dataset))
    with pytest.raises(BundleError, match="need"):
        measure(bundle, part_of(dataset), probabilities=probabilities[:-1])
    right = [
        bundle.analyze(record["image"]["path"], explain=False).prediction.label == bundle.labels[int(row.argmax())]
        for record, row in zip(dataset, probabilities, strict=True)
    ]
    assert np.mean(right) > 0.9
    assert (
        measure(bundle, part_of(dataset), probabilities=probabilities)["classification"]
        == (bundle.metrics["classification"])
    )


def test_a_task_is_suggested_across_kinds_of_head(built, tiny_bundles, tiny_data):
    bundles = {"patch": built[0], **tiny_bundles}
    found = {suggestion.name for suggestion in suggest_task(bundles, sample(tiny_data["tints"], "amber"))}
    assert found == set(bundles)


def test_an_unknown_kind_is_refused(tiny_data, backbone):
    with pytest.raises(BundleError, match="'forest'.*linear, patch"):
        build_bundle(tiny_data["tints"], "tints", backbone, head="forest")
