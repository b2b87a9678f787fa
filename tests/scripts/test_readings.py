"""The tables of readings and spaces: measured once, kept, and written between the marks of a page."""

import json
import sys

import pytest

from medssl.backbones.backbone import Backbone
from medssl.bundle.build import build_bundle
from tests.conftest import ROOT, UNCHOSEN

sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))
import readings  # noqa: E402

PAGE = f"above\n\n{readings.BEGIN}\nold\n{readings.END}\n\nbelow\n"


def test_both_tables_are_written_and_what_is_there_is_kept(tiny_data, tiny_backbone, tmp_path, monkeypatch):
    page, out = tmp_path / "page.md", tmp_path / "readings.json"
    page.write_text(PAGE)
    given = ["--backbone", str(tiny_backbone), "--data", *map(str, tiny_data.values()), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["readings.py", *given, "--page", str(page), "--cache", str(tmp_path / "cache")])
    assert readings.main() == 0
    found = json.loads(out.read_text())
    assert set(found) == {"tiny-dinov2/shapes", "tiny-dinov2/tints"}
    pair = found["tiny-dinov2/shapes"]
    assert sum(row["chosen"] for row in pair["readings"].values()) == 1
    assert {"cls", "mean", "cls+mean"} <= set(pair["readings"])
    assert set(pair["spaces"]["cls"]["spaces"]) == {"plain", "standardized", "whitened"}
    assert set(pair["spaces"]["cls"]["spaces"]["plain"]["flagged"]) == {"own test", "tints"}
    text = page.read_text()
    assert text.startswith("above") and text.endswith("below\n") and "old" not in text
    assert text.count("| shapes | tiny-dinov2 |") == len(pair["readings"]) + 6
    pair["readings"]["cls"]["val"]["accuracy"] = 0.125
    out.write_text(json.dumps(found))
    assert readings.main() == 0 and "0.125" in page.read_text()


def test_a_builds_own_embeddings_serve(tiny_data, tiny_backbone, tmp_path, monkeypatch):
    cache, out = tmp_path / "cache", tmp_path / "readings.json"
    build_bundle(tiny_data["shapes"], "shapes", tiny_backbone, cache_dir=cache, **{**UNCHOSEN, "pooling": "auto"})
    monkeypatch.setattr(Backbone, "embed", lambda *_: pytest.fail("the build's embeddings were not taken"))
    monkeypatch.setattr(Backbone, "forward", lambda *_: pytest.fail("the build's embeddings were not taken"))
    given = ["--backbone", str(tiny_backbone), "--data", str(tiny_data["shapes"]), "--out", str(out), "--as-build"]
    monkeypatch.setattr(sys, "argv", ["readings.py", *given, "--cache", str(cache)])
    assert readings.main() == 0
    found = json.loads(out.read_text())["tiny-dinov2/shapes"]["readings"]
    assert all(row["tried_by_build"] for row in found.values())
