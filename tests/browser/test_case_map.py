"""The map of the cases in a real browser: hover, click, keyboard, colours, and the image among them."""

from __future__ import annotations

from tests.browser.test_page import analyze
from tests.conftest import sample


def test_dots_tell_of_their_cases_and_open_them(opened, app, tiny_data, tiny_bundles):
    page = opened(app.url)
    analyze(page, sample(tiny_data["shapes"], "dots"))
    page.click("#map-accordion button")
    dots = page.locator("#case-map circle")
    dots.first.wait_for()
    assert dots.count() == len(tiny_bundles["shapes"].library) and page.locator("#case-map .ms-map-own").count() == 1
    # The topmost dot at its own middle, so that the pointer meets it.
    last = dots.last
    last.hover()
    page.wait_for_selector("#case-map .ms-map-tip:not([hidden])")
    assert page.inner_text("#case-map .ms-map-tip").startswith(last.get_attribute("data-label"))
    tile = "getComputedStyle(document.querySelector('#case-map .ms-map-tile')).backgroundImage"
    assert page.evaluate(tile).startswith('url("data:image/jpeg')
    last.click()
    page.wait_for_selector("#map-case dl")
    assert last.get_attribute("data-id") in page.inner_text("#map-case")


def test_colors_change_and_the_keyboard_goes_from_case_to_case(opened, app):
    page = opened(app.url)
    page.click("#map-accordion button")
    page.locator("#case-map circle").first.wait_for()
    fill = "getComputedStyle(document.querySelector('#case-map circle')).fill"
    page.select_option("#case-map select", "source")
    by_source = {page.evaluate(fill)}
    assert by_source == {"rgb(0, 114, 178)"} and "synthetic" in page.inner_text(
        "#case-map .ms-map-legend[data-of=source]"
    )
    page.focus("#case-map svg")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#case-map .ms-map-tip:not([hidden])")
    first = page.get_attribute("#case-map .ms-map-current", "data-id")
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_selector("#map-case dl")
    assert page.get_attribute("#case-map .ms-map-current", "data-id") in page.inner_text("#map-case") and first
    page.keyboard.press("Escape")
    page.wait_for_selector("#case-map .ms-map-tip", state="hidden")
