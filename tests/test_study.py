"""Paired differences on planted data, random twins, and the study from folder to files."""

import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from medssl.backbones import Backbone
from medssl.bootstrap import group_draws, number_groups
from medssl.data import load_data
from medssl.embeddings import fingerprint
from medssl.errors import BackboneError, DataError
from medssl.evaluation import classification_metrics
from medssl.probes import ACCURACIES, Outcome
from medssl.study import absolute_figure, compare, open_backbone, paired_difference, public_id, random_twin
from medssl.training import Part
from tests.models import save_model

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "study.py"


def answers(rate, images=300, seed=0):
    return (np.random.default_rng(seed).random(images) < rate).astype(float)


GROUPS = [str(number // 3) for number in range(300)]
LABELS = np.arange(300) % 4


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_backbone_does_not_differ_from_itself(labels):
    found = paired_difference(answers(0.7), answers(0.7), GROUPS, labels)
    assert found == {"value": 0, "low": 0, "high": 0, "n": 300, "groups": 100}


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_planted_gain_is_found_though_the_intervals_overlap(labels):
    worse = answers(0.7)
    better = worse.copy()
    better[np.flatnonzero(worse == 0)[::4]] = 1
    gain = paired_difference(better, worse, GROUPS, labels)
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    if labels is None:
        assert gain["value"] == pytest.approx(better.mean() - worse.mean())
    part = Part(np.zeros((300, 1)), LABELS, np.array(GROUPS))
    name = "accuracy" if labels is None else "balanced_accuracy"
    alone = [absolute_figure(Outcome("linear", ACCURACIES, scores), name, part) for scores in (worse, better)]
    assert alone[0]["high"] > alone[1]["low"]
    assert gain["value"] == pytest.approx(alone[1]["value"] - alone[0]["value"])
    loss = paired_difference(worse, better, GROUPS, labels)
    assert (loss["value"], loss["low"], loss["high"]) == pytest.approx((-gain["value"], -gain["high"], -gain["low"]))


def test_a_difference_equals_literal_resampling_of_the_same_groups():
    first, second, numbers = answers(0.8), answers(0.7, seed=1), number_groups(GROUPS)
    draws = group_draws(100, 80, np.random.default_rng(4))
    gaps = []
    for counts in draws:
        drawn = [group for group, count in enumerate(counts) for _ in range(count)]
        rows = np.concatenate([np.flatnonzero(numbers == group) for group in drawn])
        gaps.append(first[rows].mean() - second[rows].mean())
    found = paired_difference(first, second, GROUPS, n_bootstrap=80, seed=4)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.percentile(gaps, (2.5, 97.5))))


def test_unknown_scores_are_left_out_and_no_score_is_no_figure():
    scores = answers(0.7)
    scores[:30] = np.nan
    found = paired_difference(answers(0.9, seed=1), scores, GROUPS)
    assert (found["n"], found["groups"]) == (270, 90)
    none = paired_difference(np.full(300, np.nan), scores, GROUPS)
    assert none == {"value": None, "low": None, "high": None, "n": 0, "groups": 0}
    part = Part(np.zeros((300, 1)), LABELS, np.array(GROUPS))
    assert absolute_figure(Outcome("retrieval", (), scores), "precision_at_5", part)["n"] == 270
    assert absolute_figure(Outcome("retrieval", (), np.full(300, np.nan)), "precision_at_5", part)["value"] is None
    with pytest.raises(DataError, match="2 groups do not fit 300"):
        paired_difference(scores, scores, ["a", "b"])


def test_figures_are_those_of_classification_metrics():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), 300)
    part = Part(np.zeros((300, 1)), random.choice(4, 300, p=(0.6, 0.2, 0.1, 0.1)), np.array(GROUPS))
    expected = classification_metrics(probabilities, part.labels, part.groups, list("abcd"), seed=3)
    scores = (probabilities.argmax(axis=1) == part.labels).astype(float)
    for name in ACCURACIES:
        found = absolute_figure(Outcome("linear", ACCURACIES, scores), name, part, seed=3)
        assert found == pytest.approx(expected[name]), name


def test_a_random_twin_is_fixed_by_its_seed(tiny_backbone, tiny_data):
    state = torch.get_rng_state()
    first, again, other = (random_twin(tiny_backbone, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    trained = Backbone.from_pretrained(tiny_backbone)
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    vectors = [twin.embed(pixels, "cls") for twin in (first, again, other, trained)]
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2]) and not np.allclose(vectors[0], vectors[3])
    assert first.preprocess == trained.preprocess and first.revision.startswith("random:seed=0:sha256:")
    dataset = load_data(tiny_data["shapes"]).select(range(3))
    prints = [fingerprint(dataset, twin, twin.preprocess, "cls") for twin in (first, again, other)]
    assert prints[0] == prints[1] != prints[2]
    named = open_backbone(f"random:{tiny_backbone}", 1)
    assert named.revision == other.revision and public_id(named.id) == "random:tiny-dinov2"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: save_model(family, root / family) for family in ("vit", "resnet")}


def test_compare_measures_every_figure_and_pairs_it(models, tiny_data, tmp_path):
    backbones = {**models, "same": models["vit"], "untrained": f"random:{models['vit']}"}
    study = compare(backbones, tiny_data, ["vit"], n_bootstrap=50, cache_dir=tmp_path, progress=False)
    assert len(study.rows) == 2 * (4 + 3) * 7
    figures = {(row.task, row.backbone, row.head, row.metric, row.reference): row for row in study.rows}
    assert len(figures) == len(study.rows)
    for (task, backbone, head, name, reference), row in figures.items():
        assert (row.n, row.groups, row.seed) == (12, 6, 0)
        if reference is None:
            assert 0 <= row.low <= row.value <= row.high <= 1
        else:
            pair = [figures[task, which, head, name, None].value for which in (backbone, "vit")]
            assert row.value == pytest.approx(pair[0] - pair[1])
        if backbone == "same" and reference:
            assert (row.value, row.low, row.high) == (0, 0, 0)
    assert figures["tints", "vit", "linear", "accuracy", None].value > 0.5
    assert figures["tints", "vit", "knn", "accuracy", None].setting.startswith("k=")
    again = compare(backbones, tiny_data, ["vit"], n_bootstrap=50, cache_dir=tmp_path, progress=False)
    assert again == study
    assert study.table().count("\n") == 1 + 8 and study.differences().count("\n") == 1 + 6
    assert str(models["vit"].parent) not in study.report() and "| shapes | shapes | 3 |" in study.report()


def test_random_labels_are_at_chance(models, tiny_data, tmp_path):
    folder = shutil.copytree(tiny_data["shapes"], tmp_path / "shuffled")
    lines = (folder / "metadata.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    # Within a split and between groups, so that every class stays in every split.
    random = np.random.default_rng(1)
    for split in ("train", "val", "test"):
        members = [row for row in rows if row[2] == split]
        for row, label in zip(members, random.permutation([row[1] for row in members]), strict=True):
            row[1] = str(label)
    (folder / "metadata.csv").write_text("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n")
    study = compare({"vit": models["vit"]}, {"shuffled": folder}, cache_dir=tmp_path / "cache", progress=False)
    for row in study.rows:
        assert row.low <= 1 / 3 <= row.high, row


def test_what_cannot_be_compared_is_said(models, tiny_data):
    with pytest.raises(BackboneError, match="reference nobody is none of the backbones.*Allowed: vit, resnet"):
        compare(models, tiny_data, ["nobody"])
    with pytest.raises(DataError, match="at least one backbone"):
        compare({}, tiny_data)
    with pytest.raises(DataError, match="at least one task"):
        compare(models, {})


def run(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "MEDSSL_CACHE": "/nonexistent"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def test_the_script_prints_both_tables_and_writes_both_files(models, tiny_data, tmp_path):
    out = tmp_path / "new" / "study"
    done = run(
        "--data", tiny_data["shapes"], f"colours={tiny_data['tints']}", "--backbones", models["vit"],
        f"control=random:{models['vit']}", f"conv={models['resnet']}", "--against", "control", "--against", "vit",
        "--resamples", 40, "--seed", 2, "--cache", tmp_path / "cache", "--out", out, "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| task | backbone | linear | kNN | centroid | P@5 |" in done.stdout
    assert "| colours | conv - control |" in done.stdout and "%|" not in done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["report.md", "results.parquet"]
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert len(rows) == 2 * (3 + 2 + 2) * 7
    assert {row["task"] for row in rows} == {"shapes", "colours"} and {row["seed"] for row in rows} == {2}
    assert {row["reference"] for row in rows} == {None, "control", "vit"}
    report = (out / "report.md").read_text("utf-8")
    for line in done.stdout.splitlines():
        assert not line.startswith("|") or line in report
    again = compare(
        {"vit": models["vit"], "control": f"random:{models['vit']}", "conv": models["resnet"]},
        {"shapes": tiny_data["shapes"], "colours": tiny_data["tints"]},
        ["control", "vit"],
        seed=2,
        n_bootstrap=40,
        cache_dir=tmp_path / "cache",
        progress=False,
    )
    assert [asdict(row) for row in again.rows] == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "d", "--backbones", "a", "x/a", "--out", "o"], "needs a different name for each"),
        (["--data", "d", "--backbones", "a", "--against", "b", "--out", "o"], "reference b is none"),
        (["--data", "nowhere", "--backbones", "a", "--out", "o"], "nowhere"),
        (["--data", "d", "--backbones", "a", "--out", __file__], "is a file"),
    ],
)
def test_the_script_says_what_is_wrong_in_one_sentence(arguments, message, monkeypatch, capsys):
    # In this process: starting another costs seconds, and one test does so already.
    monkeypatch.setattr(sys, "argv", ["study.py", *arguments])
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert left.value.code == 2
    assert message in capsys.readouterr().err
