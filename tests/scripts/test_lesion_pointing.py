"""The benchmark of all maps beside each other: a whole run on a small task, kept figures, and data without boxes."""

import json

from tests import warm
from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "benchmarks" / "lesion_pointing.py"
FEW = ["--n", "8", "--slow-images", "3", "--curves", "4", "--quiet"]


def test_a_run_writes_a_table_of_every_map_and_keeps_its_figures(lesion_bundle_folder, lesion_data, tmp_path):
    page, kept = tmp_path / "page.md", tmp_path / "maps.json"
    page.write_text(
        "# Before\n\n<!-- Written by scripts/benchmarks/lesion_pointing.py: begin -->\n<!-- end -->\n\nAfter\n"
    )
    command = [SCRIPT, "--bundle", lesion_bundle_folder, "--data", lesion_data, *FEW, "--json", kept, "--page", page]
    command += ["--explainers", "vit_cx", "grad_cam"]
    done = warm.run(command)
    assert done.returncode == 0, done.stderr
    ((name, figures),) = json.loads(kept.read_text()).items()
    maps = figures["maps"]
    assert name == "discs, tiny-dinov2" and list(maps) == ["random", "vit_cx", "grad_cam", "lesion map"]
    assert [maps[key]["pointing"]["n"] for key in maps] == [8, 3, 8, 8]
    assert [maps[key]["curves"]["n"] for key in maps] == [4, 3, 4, 4] and "less_random" not in maps["random"]
    assert maps["lesion map"]["precision"]["value"] > 0.5 > maps["random"]["precision"]["value"]
    text = page.read_text()
    assert text.startswith("# Before") and text.endswith("After\n") and text.count("**discs, tiny-dinov2**") == 1
    again = warm.run([SCRIPT, "--json", kept, "--page", page])
    assert again.returncode == 0 and page.read_text() == text


def test_data_without_boxes_is_refused_in_a_sentence(tiny_bundle_folders, tiny_data):
    done = warm.run([SCRIPT, "--bundle", tiny_bundle_folders["shapes"], "--data", tiny_data["shapes"], *FEW])
    assert done.returncode == 2 and "has no boxes or masks" in done.stderr and "Traceback" not in done.stderr
