"""The localizer: strict on disk, exact in the picture's frame, calibrated, and better than chance where it can be."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import expit

from medssl.data.annotations import BOXES
from medssl.data.load import load_data, read_record
from medssl.errors import BundleError, DataError
from medssl.explain.faithfulness import box_mask, pointing_hit
from medssl.heads.fit_localizer import HeldOut, average_precision, calibrate_maps, lesion_patches, point_scores
from medssl.heads.lesion_examples import AnnotatedTokens, draw_examples, fit_logistic
from medssl.heads.lesion_map import peak
from medssl.heads.localizer import POINTS, Localizer, LocalizerConfig
from medssl.images.preprocess import Preprocess


def test_it_finds_lesions_of_pictures_that_it_never_saw(lesion_data, lesion_bundle):
    test = [row for row in load_data(lesion_data) if row["split"] == "test" and row[BOXES]]
    hits = []
    for row in test:
        image = read_record(row)
        found = lesion_bundle.open(image).lesion_map()
        assert found.heatmap.shape == image.size[::-1] and found.heatmap.dtype == np.float32
        assert 0 <= found.heatmap.min() and found.probability == pytest.approx(float(found.heatmap.max()))
        hits.append(pointing_hit(found.heatmap, box_mask(row[BOXES][0], *found.heatmap.shape)))
    assert np.mean(hits) > 0.8, "discs in noise are easy; chance is about 0.1"
    record = lesion_bundle.metrics["localizer"]
    assert record["test"]["hit_rate"]["value"] > 0.8 and record["held_out"]["name"] == "validation"


def test_it_points_at_lesions_of_its_classes_where_it_was_seen_to(lesion_bundle):
    localizer = lesion_bundle.localizer
    assert localizer.config.hit_rate["low"] >= POINTS
    assert [localizer.points_at(label) for label in (*localizer.config.labels, "plain")] == [True, True, False]
    for rate in ({}, {**localizer.config.hit_rate, "low": POINTS - 0.01}):
        assert not Localizer(replace(localizer.config, hit_rate=rate)).points_at(localizer.config.labels[0])


def test_lesions_of_one_class_are_told_from_those_of_another(lesion_data, lesion_bundle):
    rows = [row for row in load_data(lesion_data) if row["split"] == "test" and row[BOXES]]
    names = load_data(lesion_data).features["label"].names
    own, other = [], []
    for row in rows:
        opened = lesion_bundle.open(read_record(row))
        label = names[row["label"]]
        own.append(opened.lesion_map(label).probability)
        other.append(opened.lesion_map("warm" if label == "cold" else "cold").probability)
    assert np.mean(own) > 2 * np.mean(other)


def test_a_map_is_in_the_frame_of_its_picture(lesion_bundle):
    noise = np.random.default_rng(1).normal(110, 12, (40, 100))
    noise[20:36, 10:26] = 240
    found = lesion_bundle.open(Image.fromarray(noise.astype(np.uint8))).lesion_map()
    assert found.heatmap.shape == (40, 100)
    left, top, right, bottom = found.box
    assert left <= found.point[0] <= right and top <= found.point[1] <= bottom


def test_it_is_the_same_after_saving_and_loading(lesion_bundle, tmp_path):
    lesion_bundle.localizer.save_pretrained(tmp_path / "l")
    again = Localizer.from_pretrained(tmp_path / "l")
    image = Image.effect_noise((64, 64), 60).convert("RGB")
    one, two = (each.locate(lesion_bundle.backbone, image) for each in (lesion_bundle.localizer, again))
    assert np.array_equal(one.heatmap, two.heatmap) and one.to_dict() | {"seconds": 0} == two.to_dict() | {"seconds": 0}
    assert json.loads(json.dumps(one.to_dict())) == one.to_dict()


def test_one_forward(lesion_bundle, monkeypatch):
    calls = []
    forward = type(lesion_bundle.backbone).forward
    monkeypatch.setattr(type(lesion_bundle.backbone), "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    opened = lesion_bundle.open(Image.new("RGB", (64, 64)))
    opened.lesion_map()
    opened.lesion_map()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "schema_version 2"),
        ({"layers": []}, "one or more"),
        ({"layers": [0]}, r"layers\.0"),
        ({"smoothing": float("nan")}, "smoothing"),
        ({"labels": ["warm", "warm"]}, "different names"),
        ({"labels": ["warm"]}, "do not match"),
        ({"preprocess": {"size": [56, 56], "fit": "crop"}}, "preprocess"),
    ],
)
def test_a_changed_config_is_refused(lesion_bundle_folder, tmp_path, change, said):
    folder = shutil.copytree(lesion_bundle_folder / "localizer", tmp_path / "l")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(BundleError, match=said):
        Localizer.from_pretrained(folder)


def test_another_backbone_is_refused(lesion_bundle):
    config = lesion_bundle.localizer.config
    fitted = {**config.backbone, "revision": "sha256:other"}
    other = Localizer(LocalizerConfig(**{**vars(config), "backbone": fitted}))
    with pytest.raises(BundleError, match="This localizer was fitted on a backbone with revision 'sha256:other'"):
        other.check_backbone(lesion_bundle.backbone)


def test_an_unknown_class_of_lesion_is_refused(lesion_bundle):
    with pytest.raises(BundleError, match="no lesions of 'none'. Allowed: cold, warm, or empty"):
        lesion_bundle.open(Image.new("RGB", (64, 64))).lesion_map("none")


def test_average_precision_and_positives_by_hand():
    assert average_precision(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])) == pytest.approx(
        5 / 6
    )
    areas = np.array([[0.0, 0.6, 0.5, 0.2], [0.0, 0.1, 0.3, 0.0], [0.0] * 4])
    assert lesion_patches(areas).tolist() == [[False, True, True, False], [False, False, True, False], [False] * 4]
    hits, _ = point_scores(np.array([[[0, 0, 0, 1.0]], [[1.0, 0, 0, 0]]]), areas[:2, None])
    assert hits.tolist() == [1.0, 0.0], "the first touches the lesion, the second does not"


def test_the_calibration_takes_log_odds_to_shares():
    random = np.random.default_rng(0)
    true = random.normal(-3, 2, (20, 8, 8))
    slope, offset = calibrate_maps((true - 1) / 3, expit(true))
    assert slope == pytest.approx(3, abs=0.05) and offset == pytest.approx(1, abs=0.05)


def test_the_fit_is_logistic_regression(make_tokens):
    from sklearn.linear_model import LogisticRegression

    pictures = make_tokens(30)
    examples = draw_examples(pictures, (1,), 1, seed=0)
    penalty = 1e-2
    weight, bias = fit_logistic(examples, [penalty])[penalty]
    values = torch.cat([torch.from_numpy(pictures.patches((1,), n, slice(None))) for n in range(30)])
    hard = LogisticRegression(C=1 / (penalty * len(examples.values)), max_iter=5000, tol=1e-8)
    hard.fit(examples.values.numpy(), examples.targets[:, 0].numpy() > 0.5)
    plain = expit(hard.decision_function(((values - examples.mean) / examples.std).numpy()))
    assert np.abs(expit((values @ weight[0] + bias[0]).numpy()) - plain).max() < 0.01


@pytest.fixture
def make_tokens():
    def make(count, side=6, width=5):
        random = np.random.default_rng(0)
        areas = np.zeros((count, side, side), np.float32)
        areas[:, 2:4, 2:4] = 1
        tokens = random.normal(size=(count, side * side, width)).astype(np.float16)
        tokens[..., 0] += areas.reshape(count, -1).astype(np.float16)
        groups = np.arange(count) // 2
        return AnnotatedTokens({1: tokens}, np.arange(count), areas, np.zeros(count, int), groups)

    return make


def test_what_is_drawn_of_many_pictures_weighs_as_all_of_them(make_tokens):
    pictures = make_tokens(61, side=12)
    examples = draw_examples(pictures, (1,), 1, seed=0)
    assert len(examples.values) == 61 * (4 + 64)
    assert float(examples.weights @ examples.targets[:, 0]) == pytest.approx(4 / 144, rel=1e-4)


def test_validation_decides_where_it_can_and_folds_of_train_else():
    splits = np.array(["train"] * 20 + ["val"] * 12)
    groups = np.arange(32) // 2
    seen = np.ones(32, bool)
    whole = HeldOut.of(splits, seen, groups, 0)
    assert whole.name == "validation" and whole.final.tolist() == list(range(20)) and len(whole.folds) == 1
    seen[22:] = False
    folded = HeldOut.of(splits, seen, groups, 0)
    assert len(folded.folds) == 5 and sorted(folded.pictures) == list(range(32)) == sorted(folded.final)
    assert all(not set(groups[fit]) & set(groups[held]) for fit, held in folded.folds)
    with pytest.raises(DataError, match="two or more are needed"):
        HeldOut.of(splits, seen, np.zeros(32), 0)


def test_the_box_of_a_maximum_is_its_own_region():
    heatmap = np.zeros((10, 20), np.float32)
    heatmap[2:4, 5:8] = 0.5
    heatmap[3, 6] = 0.9
    heatmap[8, 15] = 0.8
    point, box = peak(heatmap)
    assert point == (0.325, 0.35) and box == (0.25, 0.2, 0.4, 0.4)
    assert peak(np.zeros((3, 3)))[0] == (0.5, 0.5)


def test_padding_is_no_part_of_the_map(lesion_bundle):
    config = lesion_bundle.localizer.config
    padded = Localizer(LocalizerConfig(**{**vars(config), "preprocess": Preprocess((56, 56), fit="pad")}))
    padded.load_state_dict(lesion_bundle.localizer.state_dict())
    assert padded.locate(lesion_bundle.backbone, Image.new("RGB", (90, 30))).heatmap.shape == (30, 90)
