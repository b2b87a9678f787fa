"""Adding the image at hand to the library in a real browser, and taking it back."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.browser.test_page import analyze
from tests.conftest import App, draw


@pytest.fixture(scope="module")
def curated(tiny_bundle_folders, tmp_path_factory):
    """A page that may add to a bundle of its own."""
    root = tmp_path_factory.mktemp("curated")
    folder = shutil.copytree(tiny_bundle_folders["shapes"], root / "shapes")
    running = App(["--curate", "--bundle", str(folder)], root / "log.txt").wait()
    running.folder = folder
    yield running
    running.close()


def additions(folder):
    return json.loads((folder / "metrics.json").read_text("utf-8")).get("additions", [])


def test_a_case_is_added_and_taken_back(opened, curated, tmp_path):
    page = opened(curated.url)
    path = tmp_path / "new.png"
    Image.fromarray(draw("dots", np.random.default_rng(11))).save(path)
    analyze(page, path)
    page.click("#curate button")
    page.click("#curate-add")
    page.wait_for_selector("[data-testid='toast-body']")
    assert "confirmed label" in page.inner_text("[data-testid='toast-body']") and not additions(curated.folder)
    page.click("#curate-label input")
    page.get_by_role("option", name="dots", exact=True).click()
    page.click("#curate-add")
    page.wait_for_selector("#curate-said :text('Added as')")
    assert len(additions(curated.folder)[0]["cases"]) == 1
    page.click("#curate-undo")
    page.wait_for_selector("#curate-said :text('Taken back')")
    assert not additions(curated.folder)


def test_a_page_that_was_not_started_for_it_offers_nothing(opened, app):
    assert opened(app.url).locator("#curate").count() == 0
