"""A real browser, and pages in it that may not ask anything of another machine."""

import os
import re
import tempfile
from pathlib import Path

import pytest

from scripts import screenshot

CHROMIUM = os.environ.get("MEDSSL_CHROMIUM", screenshot.CHROMIUM)


@pytest.fixture(scope="module")
def browser():
    """The browser; the tests that ask for it are skipped, visibly, where there is none.

    Of a module, as its driver leaves a running event loop in the thread until it ends.
    """
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: the page is not tested"
    )
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no browser at {CHROMIUM}: the page is not tested")
    with tempfile.TemporaryDirectory() as profile, playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            headless=True,
            args=list(screenshot.FLAGS),
            viewport={"width": 1280, "height": 900},
        )
        yield context
        context.close()


@pytest.fixture
def opened(browser):
    """Opens an app's page; fails afterwards on any request that leaves this machine."""
    pages, asked = [], []

    def open_page(url: str):
        page = browser.new_page()
        pages.append(page)
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(20_000)
        page.goto(url, wait_until="domcontentloaded")
        page.wait_for_selector("#analyze")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert asked
    elsewhere = [url for url in asked if not re.match(r"(http://127\.0\.0\.1:\d+/|data:|blob:|about:)", url)]
    assert not elsewhere
