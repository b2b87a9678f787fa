"""Edits of a bundle's text files by hand: refused until accepted, and only texts are."""

import json
import shutil
from pathlib import Path

import pytest

from medssl.bundle import Bundle
from medssl.bundle.edits import accept_edits
from medssl.bundle.manifest import MANIFEST_FILE, check_manifest
from medssl.cli import accept
from medssl.errors import BundleError


@pytest.fixture
def folder(tiny_bundle_folders, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bundle_folders["shapes"], tmp_path / "my bundle"))


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])


def test_an_edited_card_is_refused_with_the_way_out_and_then_taken(folder, capsys):
    card = folder / "README.md"
    card.write_text(card.read_text().replace("## Limits", "## My limits"))
    with pytest.raises(BundleError, match=r"README\.md is not what .*medssl accept --bundle '.*my bundle'"):
        Bundle.load(folder)
    assert accept.main(["--bundle", str(folder)]) == 0
    assert capsys.readouterr().out == "Accepted: README.md.\n"
    assert "## My limits" in Bundle.load(folder).card and check_manifest(folder)
    accept.main(["--bundle", str(folder)])
    assert "No file differs" in capsys.readouterr().out


def test_a_new_text_and_several_edits_are_named(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**metrics, "seed": 7}))
    (folder / "README.md").write_text("# Mine\n")
    assert accept_edits(folder) == ["README.md", "metrics.json"]
    assert Bundle.load(folder).metrics["seed"] == 7


@pytest.mark.parametrize("pattern", ["head/model.safetensors", "cases/*.parquet"])
def test_weights_and_cases_are_never_accepted(folder, pattern):
    (folder / "README.md").write_text("# Mine\n")
    (path,) = folder.glob(pattern)
    flip(path)
    before = (folder / MANIFEST_FILE).read_bytes()
    with pytest.raises(BundleError, match=f"{path.name} is not what .* Build the bundle again"):
        accept_edits(folder)
    assert (folder / MANIFEST_FILE).read_bytes() == before


def test_a_foreign_or_missing_file_is_not_accepted(folder):
    (folder / "more.py").write_text("print(1)")
    with pytest.raises(BundleError, match=r"more\.py"):
        accept_edits(folder)
    (folder / "more.py").unlink()
    (folder / "metrics.json").unlink()
    with pytest.raises(BundleError, match=r"metrics\.json"):
        accept_edits(folder)


def test_an_edit_that_makes_no_bundle_is_not_accepted(folder):
    (folder / "metrics.json").write_text('{"images": "many"}')
    with pytest.raises(BundleError, match="metrics.json of .* does not fit: images is 'many'"):
        accept_edits(folder)
    with pytest.raises(BundleError, match="is not what the bundle's manifest says"):
        Bundle.load(folder)


def test_an_earlier_bundle_gets_a_manifest(folder):
    (folder / MANIFEST_FILE).unlink()
    assert accept_edits(folder) == [] and check_manifest(folder)


def test_what_is_no_folder_is_said():
    with pytest.raises(BundleError, match="no folder here"):
        accept_edits("me/brain")
    with pytest.raises(BundleError, match="no bundle folder"):
        accept_edits("/nowhere")
