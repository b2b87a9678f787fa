"""Adding to a library through the page: only where it was started for that, and never on a Space."""

from __future__ import annotations

import shutil

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from medssl.bundle.bundle import Bundle
from medssl.cli.serve import curated_folders
from medssl.demo.bundles import shipped_bundles
from medssl.errors import BundleError, ImageError
from medssl.images import Picture
from medssl.web.page import Page
from medssl.web.service import Service
from medssl.web.session import Visit
from tests.conftest import draw


def quiet(*_args, **_more):
    """A progress bar that nobody sees."""


def page_over(bundles, folders=None):
    """A page, and its panels by name."""
    with gr.Blocks():
        page = Page(Service(bundles, folders))
    return page, {panel.name: panel for panel in page.panels}


def test_without_curate_there_is_no_way_to_add(tiny_bundles):
    page, panels = page_over(tiny_bundles)
    assert "grow" not in panels
    with pytest.raises(BundleError, match="not started with --curate"):
        page.service.folder("shapes")


def test_the_image_at_hand_is_added_and_taken_back(tiny_bundles, tiny_bundle_folders, tmp_path):
    folder = shutil.copytree(tiny_bundle_folders["shapes"], tmp_path / "shapes")
    before, tiny = (folder / "metrics.json").read_bytes(), tiny_bundles["shapes"]
    page, panels = page_over({"shapes": tiny}, {"shapes": folder})
    curate, visit = panels["grow"], Visit(Picture(Image.fromarray(draw("dots", np.random.default_rng(3)))))
    with pytest.raises(ImageError, match="press Analyze first"):
        curate.add_image(visit, "shapes", "dots", "")
    *_, _shown = page.run(visit, "shapes", "", 0.5, "vit_cx", quiet)
    with pytest.raises(BundleError, match="never taken for it"):
        curate.add_image(visit, "shapes", None, "")
    said = curate.add_image(visit, "shapes", "dots", "patient-9")[curate.said]
    assert "Added as “dots”" in said and len(page.service.bundle("shapes").library) == len(tiny.library) + 1
    loaded = Bundle.load(folder, backbone=tiny.backbone)
    assert dict(zip(loaded.cases["id"][:], loaded.cases["group_id"][:], strict=True))[visit.picture.id] == "patient-9"
    other = Visit(Picture(Image.fromarray(np.asarray(visit.image) ^ 1)))
    *_, shown = page.steps(other, "shapes", "", "occlusion", quiet)
    assert shown.cases[0].id == visit.picture.id
    assert "Taken back" in curate.take_back(visit, "shapes")[curate.said]
    assert len(page.service.bundle("shapes").library) == len(tiny.library)
    assert (folder / "metrics.json").read_bytes() == before
    with pytest.raises(BundleError, match="Nothing was added"):
        curate.take_back(visit, "shapes")


def test_curation_takes_folders_of_ones_own_and_no_space(tiny_bundle_folders, monkeypatch):
    folder = str(tiny_bundle_folders["shapes"])
    assert curated_folders(["shapes"], [folder]) == {"shapes": tiny_bundle_folders["shapes"]}
    for path in ("somebody/bundle", str(next(iter(shipped_bundles())))):
        with pytest.raises(BundleError, match="cannot be added to"):
            curated_folders(["x"], [path])
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    with pytest.raises(BundleError, match="a Space is open to everybody"):
        curated_folders(["shapes"], [folder])
