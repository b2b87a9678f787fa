"""The snippets of README and docs, as they stand: only address, files and the task's words are the tests' own."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.pictures import dicom


def snippets(section: str, page: str = "docs/api.md") -> list[str]:
    """The code of a section of a page, in order."""
    text = (ROOT / page).read_text("utf-8")
    body = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL).group(1)
    return re.findall(r"^```(?:bash|python)\n(.*?)^```", body, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory, shapes_image, tiny_bundle_folders) -> Path:
    """A folder with what the snippets name."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "scan.dcm").write_bytes(dicom(np.asarray(Image.open(shapes_image).convert("L"))))
    shutil.copy(folder / "scan.dcm", folder / "image.dcm")
    shutil.copy(shapes_image, folder / "image.png")
    (folder / "more_scans").mkdir()
    shutil.copy(folder / "scan.dcm", folder / "more_scans" / "second.dcm")
    for number in (1, 2):
        shutil.copy(folder / "scan.dcm", folder / f"slice-{number}.dcm")
    shutil.copytree(tiny_bundle_folders["shapes"], folder / "bundles" / "my_task")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    return folder


@pytest.fixture
def run(app, place, tiny_backbone):
    """Runs a snippet in that folder; what it printed."""

    def start(code: str, *command: str) -> str:
        swaps = {"http://127.0.0.1:7860": app.url, "brain": "shapes", "glioma": "dots", "pituitary": "dots"}
        for old, new in {**swaps, "dinov2-small": str(tiny_backbone)}.items():
            code = code.replace(old, new)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([*command, code], capture_output=True, text=True, timeout=180, cwd=place, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return start


@pytest.fixture(scope="module")
def expected(place, tiny_bundles) -> dict:
    """What Python says of the scan."""
    return tiny_bundles["shapes"].analyze(place / "scan.dcm", explain=False).to_dict()["prediction"]


SHELL, PYTHON = ("bash", "-eu", "-o", "pipefail", "-c"), (sys.executable, "-c")


def test_the_script(run, place, expected):
    answers = [json.loads(line) for line in run(snippets("Use from a script")[0], *SHELL).splitlines()]
    assert [Path(answer["file"]).name for answer in answers] == ["scan.dcm", "second.dcm"]
    assert all(answer["prediction"] == expected for answer in answers)
    assert len(list((place / "heatmaps").glob("*.heatmap.png"))) == 2


def test_gradio_client(run, expected):
    code = snippets("Use from a script")[1]
    *before, last = code.strip().splitlines()
    said = run("\n".join([*before, f"import json; print(json.dumps({last}))"]), *PYTHON)
    assert json.loads(said.splitlines()[-1])["prediction"] == expected


def test_many_files_in_one_call(run, expected):
    client, many = snippets("Use from a script")[1:3]
    setup = "\n".join(line for line in client.splitlines() if not line.startswith(("client.predict", "cases =")))
    *before, _, together, each, report = many.strip().splitlines()
    calls = ", ".join(line.split("  #")[0] for line in (together, each, report))
    said = run("\n".join([setup, *before, f"import json; print(json.dumps([{calls}]))"]), *PYTHON)
    group, answers, made = json.loads(said.splitlines()[-1])
    assert [one["prediction"] for one in answers] == [group["prediction"]]
    assert group["prediction"]["label"] == expected["label"] and group["images"] == 2 and Path(made["html"]).is_file()


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
def test_curl(run, expected):
    lines = run(snippets("Use from a script")[3], *SHELL).splitlines()
    (answer,) = json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))
    assert answer == {"task": "shapes", "frame": 0, "frames": 1, **expected}


def test_mcp(run, expected):
    assert ast.literal_eval(run(snippets("Use from a script")[4], *PYTHON)) == {
        "task": "shapes",
        "frame": 0,
        "frames": 1,
        **expected,
    }


def test_python(run, place, expected):
    code = "\n".join(snippets("Use from Python"))
    said = run(code + "\nimport json; print(json.dumps(analysis.to_dict()['prediction']))", *PYTHON)
    assert json.loads(said.splitlines()[-1]) == expected


def test_the_readmes_own_lines(run, expected):
    (code,) = snippets("Use", "README.md")
    assert run(code, *PYTHON).startswith(expected["label"])


def test_the_readme_ends_before_the_third_screen_and_its_links_lead_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
    assert len(pages[0].read_text("utf-8").splitlines()) <= 160
    for page in pages:
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
