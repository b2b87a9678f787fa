"""The page for everybody: axe finds no serious fault, one screen holds the answer, the keyboard reaches it.

axe-core is Deque's checker of WCAG (https://github.com/dequelabs/axe-core, MPL-2.0). It is not part of this project:
`npm pack axe-core`, and MEDSSL_AXE=.../package/axe.min.js.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.browser.test_page import TOAST, analyze, upload
from tests.conftest import sample

AXE = os.environ.get("MEDSSL_AXE", "")
SERIOUS = ("serious", "critical")
# Gradio 6.31's own markup, which the page cannot change: what is inside of it is not ours to pass or to fail.
NOT_OURS = ["footer"]


@pytest.fixture
def page(opened, app):
    return opened(app.url)


@pytest.fixture
def faults():
    """What axe calls serious on a page: rule and the elements, in words."""
    if not Path(AXE).is_file():
        pytest.skip("MEDSSL_AXE names no axe.min.js (npm pack axe-core): accessibility is not tested")
    script = Path(AXE).read_text("utf-8")

    def found(page) -> list[str]:
        page.wait_for_timeout(500)  # colours fade in; half faded they have less contrast
        page.evaluate(script)
        result = page.evaluate("exclude => axe.run({exclude: exclude.map(one => [one])})", NOT_OURS)
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in result["violations"]
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        ]

    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page, app, faults, tiny_data, theme):
    page.goto(f"{app.url}/?__theme={theme}", wait_until="domcontentloaded")
    page.wait_for_selector("#examples .thumbnail-item img")
    assert not faults(page), "empty page"
    analyze(page, sample(tiny_data["shapes"], "dots"))
    page.locator("#cases .thumbnail-item").first.click()
    page.wait_for_selector("#likeness-case img")
    page.click("#map-accordion button")
    page.locator("#case-map circle").first.wait_for()
    assert not faults(page), "page with a result"


def test_axe_finds_no_serious_fault_beside_an_error(page, faults, broken_file):
    upload(page, broken_file)
    page.wait_for_selector(TOAST)
    assert not faults(page)


def test_one_screen_holds_image_class_heatmap_and_three_cases(page, tiny_data):
    page.set_viewport_size({"width": 1366, "height": 768})
    analyze(page, sample(tiny_data["shapes"], "dots"))
    third = "#cases .thumbnail-item >> nth=2"
    for selector in ("#preview img", "#predicted-class", "#heatmap img", third):
        box = page.locator(selector).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 768, (selector, box)
    assert page.evaluate("scrollY") == 0


def test_the_keyboard_goes_through_the_cases_and_escape_closes(page, tiny_data):
    analyze(page, sample(tiny_data["shapes"], "dots"))
    page.locator("#cases .thumbnail-item").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#case :text('Case 2')")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#case :text('Case 1')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#case", state="hidden")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#case :text('Case 2')")


def test_the_tour_has_three_steps_and_does_not_come_back(page, app):
    page.evaluate("localStorage.clear()")
    page.reload(wait_until="domcontentloaded")
    page.wait_for_selector(".ms-tour")
    said = []
    for _ in range(3):
        said.append(page.inner_text(".ms-tour p:not([hidden])"))
        page.click(".ms-tour-next")
    assert len(set(said)) == 3 and "Analyze" in said[1]
    page.wait_for_selector(".ms-tour", state="hidden")
    page.reload(wait_until="domcontentloaded")
    page.wait_for_selector("#analyze")
    assert not page.locator(".ms-tour").is_visible()
