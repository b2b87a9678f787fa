"""scripts/query.py against a running app, as its user runs it: in a process of its own."""

from __future__ import annotations

import argparse
import csv
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from medssl.cli.query import write
from medssl.cli.query_many import ask_many
from medssl.text import spreadsheet_cell
from medssl.web.page import build_app, launch_options
from tests import warm
from tests.conftest import ROOT, sample
from tests.images.test_pictures import SECOND, shuffled, zipped


def query(*arguments):
    return warm.run([ROOT / "scripts" / "query.py", *arguments])


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
    verified = ["method", "deletion", "insertion", "insertion_minus_deletion", "beats_random"]
    assert [name for name in row if name in verified] == verified


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
    assert spreadsheet_cell(value) == value


def test_a_folder_in_one_call_gives_the_rows_of_python_and_one_report(
    app, tiny_data, broken_file, tiny_bundles, tmp_path
):
    folder = tmp_path / "folder"
    folder.mkdir()
    for label in ("stripes", "dots"):
        (folder / f"{label}.png").write_bytes(sample(tiny_data["shapes"], label).read_bytes())
    asked = ("--url", app.url, folder, "--task", "shapes", "--report", tmp_path / "kept")
    done = query(*asked, "--together", "--format", "csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    expected = {row.entry.file: row.to_dict() for row in tiny_bundles["shapes"].analyze_many(folder)}
    assert [row["file"] for row in rows] == ["dots.png", "stripes.png"] == sorted(expected)
    for row in rows:
        python = expected[row["file"]]
        assert row["label"] == python["label"] and row["case_id"] == python["case_id"]
        assert float(row["probability"]) == pytest.approx(python["probability"], abs=0.02)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["report.html", "report.json"]
    (folder / "bad.png").write_bytes(broken_file.read_bytes())
    done = query(*asked, "--group", "patient 7")
    answer = json.loads(done.stdout)
    assert done.returncode == 1 and answer["unreadable"] == 1 and answer["group_id"] == "patient 7"
    assert f"Together: {answer['prediction']['label']}" in done.stderr
    assert "patient 7" not in (tmp_path / "kept" / "report.json").read_text("utf-8")
    refused = query("--url", app.url, folder, "--together", "--explain", tmp_path)
    assert refused.returncode == 2 and "without them" in refused.stderr
    refused = query("--url", app.url, folder, "--group", "p", "--target", "dots", "--top-k", 3)
    assert refused.returncode == 2 and "do not use --target, --top-k" in refused.stderr


def test_each_series_gets_one_answer_and_the_model_is_asked_once(app, client, tmp_path):
    study, kept = tmp_path / "study.zip", tmp_path / "kept"
    first, second = shuffled(range(1, 4)), shuffled(range(11, 15), series=SECOND)
    study.write_bytes(zipped({**{f"a/{name}": data for name, data in first.items()}, **second}))
    done = query("--url", app.url, study, "--task", "shapes", "--series", "--report", kept)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [one["series"] for one in answer["answers"]] == ["series 1", "series 2"] and len(answer["rows"]) == 7
    for one in answer["answers"]:
        assert f"{one['series'].capitalize()}: {one['prediction']['label']}, " in done.stderr
    assert answer["report"] == [str(kept / "report.html"), str(kept / "report.json")]
    refused = query("--url", app.url, study, "--series", "--group", "p1")
    assert refused.returncode == 2 and "give one of them" in refused.stderr

    asked = []

    class Counting:
        def predict(self, **values):
            asked.append(values["api_name"])
            return client.predict(**values)

    for settings in ({"together": True}, {"series": True}, {"group": "p1"}):
        options = argparse.Namespace(task="shapes", series=False, group=None, report=kept, format="jsonl")
        vars(options).update(settings)
        out = io.StringIO()
        assert ask_many(Counting(), [study], options, lambda call: call(), out) == 0
        assert len(json.loads(out.getvalue())["rows"]) == 7
    assert asked == ["/report_many"] * 3
