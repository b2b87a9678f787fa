"""The study from folder to files: every figure, resumed after a kill, and the script."""

import os
import runpy
import shutil
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medssl.cli.study import choose, parse
from medssl.errors import BackboneError, DataError
from medssl.study import study as rooms
from medssl.study.report.folder import write_report
from medssl.study.report.tables import differences, main_table, printed
from medssl.study.results import SCHEMA, load_rows
from medssl.study.study import compare, pairs_to_compare
from tests import warm
from tests.models import save_model

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "study.py"
QUICK = {"shares": (0.2, 1.0), "draws": 2, "n_bootstrap": 50, "progress": False}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: save_model(family, root / family) for family in ("vit", "resnet")}


def test_compare_measures_every_figure_and_pairs_it(models, tiny_data, tmp_path):
    backbones = {**models, "same": models["vit"], "untrained": f"random:{models['vit']}"}
    settings = {**QUICK, "cache_dir": tmp_path, "audited": False, "kinds": {"resnet": "self-supervised"}}
    study = compare(backbones, tiny_data, against=["vit"], **settings)
    plain = [row for row in study.rows if row.reference is None]
    # Full: 3 heads x 2, 6 more of the linear head, 3 of retrieval; a share: 3 x 2; by image 9, leakage gaps 9.
    assert len(plain) == 2 * 4 * (15 + 6 + 9 + 9)
    paired = [row for row in study.rows if row.reference is not None]
    assert len(paired) == 2 * 3 * (9 + 3)
    figures = {(row.task, row.backbone, row.head, row.metric, row.share, row.protocol): row for row in plain}
    assert len(figures) == len(plain)
    for row in plain:
        assert row.seed == 0 and row.kind == study.kinds[row.backbone]
        if row.protocol == "groups":
            assert (row.n, row.groups) == (12, 6)
            if row.metric not in ("ece", "nll", "mean_set_size"):
                assert 0 <= row.low <= row.value <= row.high <= 1
    for row in paired:
        keys = [(row.task, name, row.head, row.metric, row.share, "groups") for name in (row.backbone, "vit")]
        pair = [figures[key].value for key in keys]
        assert row.value == pytest.approx(pair[0] - pair[1]) and row.reference == "vit"
        assert row.p <= row.p_holm <= 1 and row.comparisons == (18 if row.metric.endswith("accuracy") else 6)
        if row.backbone == "same":
            assert (row.value, row.low, row.high, row.p) == (0, 0, 0, 1)
    linear = figures["tints", "vit", "linear", "accuracy", 1.0, "groups"]
    assert linear.value > 0.5 and linear.setting.startswith("C=") and linear.train_images == 36
    assert compare(backbones, tiny_data, against=["vit"], **settings) == study
    assert len(main_table(study).rows) == 8 and len(differences(study).rows) == 6
    assert "| shapes | same - vit | +0.000 [+0.000, +0.000] |" in printed(study)


def test_self_supervised_ones_meet_supervised_ones_and_all_meet_the_references():
    kinds = {"a": "self-supervised", "b": "supervised", "c": "self-supervised", "d": "random control"}
    assert pairs_to_compare(list("abcd"), kinds, []) == [("a", "b"), ("c", "b")]
    assert pairs_to_compare(list("abd"), kinds, ["b", "d"]) == [
        *(("a", "b"), ("a", "d"), ("b", "d"), ("d", "b")),
    ]


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
    study = compare({"vit": models["vit"]}, {"shuffled": folder}, cache_dir=tmp_path / "cache", audited=False, **QUICK)
    for row in study.rows:
        if row.metric in ("accuracy", "precision_at_5") and row.protocol == "groups":
            assert row.low <= 1 / 3 <= row.high, row


def test_a_file_that_cannot_be_read_is_left_out_and_named(models, tiny_data, tmp_path):
    folder = shutil.copytree(tiny_data["shapes"], tmp_path / "broken")
    broken = next(folder.glob("dots-*.png"))
    broken.write_bytes(b"no picture")
    study = compare({"vit": models["vit"]}, {"broken": folder}, cache_dir=tmp_path / "cache", **QUICK)
    task = study.tasks["broken"]
    assert len(task.dataset) == len(task.task_labels.labels) == 59 and task.audit.undecodable == [broken.name]
    assert task.audit.neighbors is not None


KILLED = """
import os, signal, sys
from medssl.study import study
measure, done = study.measure_backbone, []
def counting(*arguments):
    if done:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(1)
    return measure(*arguments)
study.measure_backbone = counting
data = {"shapes": sys.argv[2], "tints": sys.argv[3]}
study.compare({"vit": sys.argv[1]}, data, cache_dir=sys.argv[4], parts=sys.argv[5], audited=False, progress=False,
              shares=(0.2, 1.0), draws=2, n_bootstrap=50)
"""


def test_a_killed_study_goes_on_where_it_was_and_gives_the_same_rows(models, tiny_data, tmp_path, monkeypatch):
    parts, vit = tmp_path / "out" / "parts", {"vit": models["vit"]}
    places = [models["vit"], *tiny_data.values(), tmp_path / "cache", parts]
    killed = warm.run(["-c", KILLED, *places])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(parts.iterdir())) == 1
    counted, measure = [], rooms.measure_backbone
    monkeypatch.setattr(rooms, "measure_backbone", lambda *given: counted.append(1) or measure(*given))
    settings = {**QUICK, "audited": False, "parts": parts}
    resumed = compare(vit, tiny_data, cache_dir=tmp_path / "cache", **settings)
    assert len(counted) == 1 and len(list(parts.iterdir())) == 2
    uninterrupted = compare(vit, tiny_data, cache_dir=tmp_path / "fresh", **{**settings, "parts": None})
    assert len(counted) == 3
    assert resumed.rows == uninterrupted.rows
    # Another name for a backbone is the same study; another seed is another.
    shapes = {"shapes": tiny_data["shapes"]}
    renamed = compare({"x": models["vit"]}, shapes, cache_dir=tmp_path / "cache", **settings)
    assert len(counted) == 3 and renamed.rows[0].value == resumed.rows[0].value
    compare(vit, shapes, seed=1, cache_dir=tmp_path / "cache", **settings)
    assert len(counted) == 4


def test_what_cannot_be_compared_is_said(models, tiny_data):
    with pytest.raises(BackboneError, match="reference nobody is none of the backbones.*Allowed: vit, resnet"):
        compare(models, tiny_data, against=["nobody"])
    with pytest.raises(BackboneError, match="kind of nobody is none"):
        compare(models, tiny_data, kinds={"nobody": "supervised"})
    with pytest.raises(BackboneError, match="vit=clever is no kind of training. Allowed: self-supervised"):
        compare(models, tiny_data, kinds={"vit": "clever"})
    with pytest.raises(DataError, match="0 draws"):
        compare(models, tiny_data, draws=0)
    with pytest.raises(DataError, match="at least one backbone"):
        compare({}, tiny_data)
    with pytest.raises(DataError, match="at least one task"):
        compare(models, {})


def run(*arguments):
    return warm.run_fresh([SCRIPT, *arguments], env={**os.environ, "MEDSSL_CACHE": "/nonexistent"})


def test_the_script_prints_both_tables_and_writes_the_report(models, tiny_data, tmp_path):
    out = tmp_path / "new" / "study"
    done = run(
        "--data", f"colours={tiny_data['tints']}", tiny_data["shapes"], "--backbones", models["vit"],
        f"control=random:{models['vit']}", "--against", "control", "--against", "vit",
        "--kind", "vit=supervised", "--draws", 1, "--resamples", 40, "--seed", 2, "--cache", tmp_path / "cache",
        "--out", out, "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| task | backbone | linear | kNN | centroid | P@5 |" in done.stdout
    assert "| colours | vit - control |" in done.stdout and "%|" not in done.stderr
    written = {path.name for path in out.iterdir()}
    assert {"results.parquet", "report.md", "report.html", "parts", "accuracy.png", "label-efficiency.png"} <= written
    assert {f"{kind}-{task}.png" for kind in ("map", "confusion", "reliability") for task in ("shapes", "colours")} <= (
        written
    )
    table = pq.read_table(out / "results.parquet")
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert {row["task"] for row in rows} == {"shapes", "colours"} and {row["seed"] for row in rows} == {2}
    assert {row["reference"] for row in rows} == {None, "control", "vit"}
    report = (out / "report.md").read_text("utf-8")
    for line in done.stdout.splitlines():
        if line.startswith("|") and "---" not in line:
            assert line[:-1] in report
    again = compare(
        {"vit": models["vit"], "control": f"random:{models['vit']}"},
        {"colours": tiny_data["tints"], "shapes": tiny_data["shapes"]},
        against=["control", "vit"],
        seed=2,
        draws=1,
        n_bootstrap=40,
        cache_dir=tmp_path / "cache",
        progress=False,
        kinds={"vit": "supervised"},
        audited=False,
    )
    assert [asdict(row) for row in again.rows] == rows
    assert load_rows(out / "results.parquet") == again.rows


def test_an_out_that_cannot_be_written_is_said(models, tiny_data, tmp_path):
    (tmp_path / "file").write_text("")
    given = {**QUICK, "cache_dir": tmp_path / "cache", "audited": False}
    with pytest.raises(DataError, match="cannot be written"):
        compare(models, tiny_data, parts=tmp_path / "file" / "parts", **given)
    with pytest.raises(DataError, match="cannot be written"):
        write_report(compare({"vit": models["vit"]}, tiny_data, **given), tmp_path / "file" / "out")


def test_a_group_of_the_script_takes_folders_and_has_its_own_pooling():
    given = ["--group", "offline", "--folder", "vit-tiny=place", "--without", "simclr", "byol"]
    given += ["--kind", "random=supervised"]
    given += ["--data", "d", "--out", "o"]
    backbones, kinds, pooling = choose(parse(given))
    assert backbones == {"medssl-tiny": "medssl-tiny", "random": "random:medssl-tiny", "vit-tiny": "place"}
    assert kinds == {"medssl-tiny": "self-supervised", "random": "supervised", "vit-tiny": "supervised"}
    assert pooling == "cls+mean"
    assert choose(parse([*given, "--pooling", "cls"]))[2] == "cls"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "d", "--backbones", "a", "x/a", "--out", "o"], "needs a different name for each"),
        (["--data", "d", "--backbones", "a", "--against", "b", "--out", "o"], "reference b is none"),
        (["--data", "nowhere", "--backbones", "a", "--out", "o"], "nowhere"),
        (["--data", "d", "--backbones", "a", "--out", __file__], "is a file"),
        (["--data", "d", "--backbones", "a", "--folder", "a=b", "--out", "o"], "are for a --group"),
        (["--data", "d", "--group", "best", "--out", "o"], "no group of backbones 'best'"),
        (["--data", "d", "--group", "offline", "--out", "o"], "--folder simclr=DIR"),
        (["--data", "d", "--group", "offline", "--backbones", "a", "--out", "o"], "not allowed with"),
    ],
)
def test_the_script_says_what_is_wrong_in_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    # In this process: starting another costs seconds, and one test does so already.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["study.py", *arguments])
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert left.value.code == 2
    assert message in capsys.readouterr().err
