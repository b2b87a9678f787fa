"""The benchmark of lesion maps: a whole run on a small task, and a section that is replaced and not repeated."""

import json

from tests import warm
from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "benchmarks" / "localizer.py"


def test_a_run_writes_tables_figures_and_curve(lesion_data, tiny_backbone, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Before\n")
    places = {name: tmp_path / name for name in ("figures.json", "curve.png")}
    command = [SCRIPT, "--data", str(lesion_data), "--backbone", str(tiny_backbone), "--quiet"]
    command += ["--counts", "2", "--draws", "2", "--cache", str(tmp_path / "cache"), "--page", str(page)]
    command += ["--json", str(places["figures.json"]), "--plot", str(places["curve.png"])]
    for _ in range(2):
        done = warm.run(command)
        assert done.returncode == 0, done.stderr
    figures = json.loads(places["figures.json"].read_text())["tiny-dinov2"]
    assert set(figures["localizer"]) == {"2", "all"} and len(figures["localizer"]["2"]["draws"]["near"]) == 2
    assert figures["localizer"]["all"]["near"]["value"] > 0.8 > figures["random"]["near"]["value"]
    text = page.read_text()
    assert text.startswith("# Before") and text.count("## Where a lesion is seen") == 1
    assert "| random map |" in text and "![How many boxes it takes](curve.png)" in text
    assert places["curve.png"].read_bytes().startswith(b"\x89PNG")


def test_data_without_boxes_is_refused_in_a_sentence(tiny_data, tiny_backbone):
    command = [SCRIPT, "--data", str(tiny_data["shapes"]), "--backbone", str(tiny_backbone)]
    done = warm.run(command)
    assert (
        done.returncode == 2
        and "No picture has a box or a mask in the test split" in done.stderr
        and "Traceback" not in done.stderr
    )
