"""scripts/query.py against a running app, as its user runs it: in a process of its own."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from medssl.cli.query import cell, write
from medssl.web.page import build_app, launch_options
from tests.conftest import ROOT, sample


def query(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "query.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )


@pytest.fixture(scope="module")
def image(tiny_data):
    return sample(tiny_data["shapes"], "stripes")


def test_same_numbers_as_bundle_analyze(app, image, tiny_bundles, tmp_path):
    done = query("--url", app.url, image, "--task", "shapes", "--top-k", 3, "--explain", tmp_path / "maps")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    expected = tiny_bundles["shapes"].analyze(image, top_k=3)
    python = expected.to_dict()
    assert answer["prediction"] == python["prediction"]
    assert answer["cases"] == python["cases"]
    for key in ("target", "probability", "masks", "forward_passes", "seed", "evidence"):
        assert answer["explanation"][key] == python["explanation"][key]
    heatmap = np.asarray(Image.open(answer["explanation"]["heatmap"]), np.float64) / 65535
    np.testing.assert_allclose(heatmap, expected.explanation.heatmap, atol=1 / 65535)
    with Image.open(answer["explanation"]["overlay"]) as overlay:
        assert overlay.size == (64, 64)
    assert "[1/1]" in done.stderr and "[1/1]" not in done.stdout


def test_another_explainer_and_its_verification_land_in_the_table(app, image, tiny_bundles, tmp_path):
    options = ("--method", "occlusion", "--verify", "--explain", tmp_path / "maps", "--format", "csv")
    done = query("--url", app.url, image, "--task", "shapes", *options)
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    found = tiny_bundles["shapes"].analyze(image, method="occlusion", verify=True).verification
    assert row["method"] == "occlusion" and float(row["deletion"]) == pytest.approx(found.deletion.value)
    assert float(row["beats_random"]) == found.insertion_minus_deletion.beats
    assert list(row)[-5:] == ["method", "deletion", "insertion", "insertion_minus_deletion", "beats_random"]


def test_a_folder_with_a_bad_file_gives_a_table_and_exit_code_1(app, tiny_data, broken_file, tmp_path, image):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "good.png").write_bytes(image.read_bytes())
    (folder / "bad.png").write_bytes(broken_file.read_bytes())
    (folder / "notes.csv").write_text("not,an,image")
    table = tmp_path / "table.csv"
    done = query("--url", app.url, folder, "--task", "shapes", "--format", "csv", "--out", table)
    assert done.returncode == 1 and done.stdout == ""
    rows = {row["file"].rsplit("/", 1)[-1]: row for row in csv.DictReader(io.StringIO(table.read_text("utf-8")))}
    assert set(rows) == {"good.png", "bad.png"}
    assert rows["bad.png"]["error"] and not rows["bad.png"]["label"]
    assert rows["good.png"]["label"] in ("dots", "plain", "stripes") and not rows["good.png"]["error"]
    assert len(rows["good.png"]["case_ids"].split()) == 6


def test_the_suggested_task_is_used_without_one(app, image, tiny_bundles):
    from medssl.bundle.bundle import suggest_task

    done = query("--url", app.url, image)
    assert json.loads(done.stdout)["task"] == suggest_task(tiny_bundles, image)[0].name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "spleen"], "no task 'spleen'"),
        (["--task", "shapes", "--target", "jade"], "no class 'jade'"),
        (["--top-k", "0"], "1 to 50"),
        (["--method", "lime"], "no explainer 'lime'"),
        (["--wait", "-1"], "0 and more seconds"),
        (["--verify"], "--verify needs --explain"),
        (["no/such/file.png"], "no/such/file.png"),
        (["--url", "http://127.0.0.1:9"], "No medssl app answers"),
        (["--url", "nonsense"], "No medssl app answers"),
    ],
)
def test_what_cannot_run_is_said_plainly_with_exit_code_2(app, image, arguments, words):
    done = query("--url", app.url, image, *arguments)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr and done.stdout == ""


def test_an_empty_folder_is_no_question(app, tmp_path):
    done = query("--url", app.url, tmp_path)
    assert done.returncode == 2 and "no image" in done.stderr


@pytest.fixture
def full_app(tiny_bundles):
    """A running app whose queue takes nobody, and its address."""
    demo = build_app({"shapes": tiny_bundles["shapes"]})
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    demo._queue.max_size = 0
    yield demo, url
    demo.close()


def test_a_full_queue_is_asked_again(full_app, image):
    demo, url = full_app
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(query, "--url", url, "--task", "shapes", image)
        time.sleep(6)
        demo._queue.max_size = 16
        done = asked.result()
    assert done.returncode == 0 and json.loads(done.stdout)["task"] == "shapes", done.stderr
    assert "queue is full; asking again in 1 s" in done.stderr


def test_patience_with_a_full_queue_ends(full_app, image):
    done = query("--url", full_app[1], "--task", "shapes", "--wait", 1, image)
    assert done.returncode == 2 and done.stdout == ""
    assert "asking again in 1 s" in done.stderr and "was full for 1 s" in done.stderr


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1+1", "\t=1", "\r=1", "\n@x", "＝1"])
def test_a_cell_of_the_table_is_no_formula(text):
    out = io.StringIO()
    write(iter([{"file": text, "error": f"{text} cannot be read"}]), "csv", out)
    (row,) = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    for name in ("file", "error"):
        assert row[name].startswith("'") and row[name].isprintable()


@pytest.mark.parametrize("value", ["scan.png", 0.5, -0.5, True, '{"a": 0.1}', "a-b=c"])
def test_a_plain_cell_stays_as_it_is(value):
    assert cell(value) == value
