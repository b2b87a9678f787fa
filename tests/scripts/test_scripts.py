"""The scripts as their user meets them: other processes, exit codes, plain sentences."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medssl.bundle.bundle import Bundle
from tests import warm
from tests.models import save_model

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("build", "embed", "evaluate", "audit", "query", "benchmark", "pretrain", "study", "demo")


def run(script, *arguments, cache=None, run=warm.run):
    environment = {**os.environ, "MEDSSL_CACHE": str(cache or "/nonexistent")}
    return run([ROOT / "scripts" / f"{script}.py", *arguments], env=environment)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts") / "data"
    rng = np.random.default_rng(0)
    for label, color in {"dark": 60, "light": 190}.items():
        (folder / label).mkdir(parents=True)
        for index in range(30):
            pixels = np.clip(rng.normal(color, 40, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_and_leaves_with_0(script):
    done = run(script, "--help", run=warm.run_fresh)
    assert done.returncode == 0 and "usage" in done.stdout and len(done.stdout) > 200


def test_build_then_evaluate(data, tmp_path):
    backbone = save_model("dinov2", tmp_path / "backbone")
    built = run(
        "build", "--data", data, "--task", "brightness", "--backbone", backbone, "--out", tmp_path / "bundle",
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert "accuracy" in built.stdout and "embed" in built.stderr
    measured = run(
        "evaluate", "--bundle", tmp_path / "bundle", "--data", data, "--split", "all", "--out", tmp_path / "m.json",
        "--others", f"other={data}", "--resamples", "50", "--quiet", cache=tmp_path / "cache", run=warm.run_fresh,
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    figures = json.loads((tmp_path / "m.json").read_text())
    # 60 images in all; those that the bundle was fitted and calibrated on are not counted, and that is said.
    assert figures["images"] + figures["known_images"] == 60 and figures["images"] == 12
    assert "48 images are the bundle's own training or validation images" in measured.stdout
    assert 0.5 < figures["classification"]["accuracy"]["value"] <= 1
    assert set(figures["unfamiliar"]["others"]) == {"other"}
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.task.name == "brightness" and bundle.labels == ["dark", "light"]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("build", ["--data", "nowhere", "--task", "t", "--backbone", "nothing", "--out", "o"], "No backbone 'nothing'"),
        ("evaluate", ["--bundle", "nowhere", "--data", "nowhere"], "no bundle folder 'nowhere'"),
        ("audit", ["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_run_says_so_in_one_sentence(script, arguments, message):
    done = run(script, *arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_audit_of_a_folder_with_a_planted_leak(data, tmp_path):
    import shutil

    folder = shutil.copytree(data, tmp_path / "data")
    lines = ["file_name,label,split"]
    for label in ("dark", "light"):
        lines += [f"{label}/{index}.png,{label},{('train', 'val', 'test')[index % 3]}" for index in range(30)]
    shutil.copy(folder / "dark" / "0.png", folder / "dark" / "1.png")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    done = run("audit", "--data", folder, "--out", tmp_path / "findings.json", run=warm.run_fresh)
    assert done.returncode == 1, done.stderr
    assert "dark/0.png" in done.stdout and "dark/1.png" in done.stdout
    assert json.loads((tmp_path / "findings.json").read_text())["findings"]
    clean = run("audit", "--data", data)
    assert clean.returncode == 0, clean.stdout + clean.stderr
