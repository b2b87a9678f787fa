"""Take a picture of the page after it analysed one image."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def take(options: argparse.Namespace) -> None:
    """Open the page, give it an image, analyse, and write the picture."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=options.chromium,
            headless=True,
            args=list(FLAGS),
            viewport={"width": options.width, "height": options.height},
            color_scheme="dark" if options.dark else "light",
        )
        page = browser.new_page()
        page.set_default_timeout(options.timeout * 1000)
        page.goto(options.url + ("?__theme=dark" if options.dark else "?__theme=light"), wait_until="domcontentloaded")
        if options.example:
            page.locator("#examples .thumbnail-item").nth(options.example - 1).click()
        else:
            page.locator("#upload input[type=file]").set_input_files(options.image)
        page.wait_for_selector("#preview img")
        page.wait_for_timeout(1000)
        page.click("#analyze")
        page.wait_for_selector("#heatmap img", state="attached")
        page.wait_for_function("document.querySelectorAll('#cases img').length >= 3")
        if options.full:
            show_all(page)
        # The page stays scrolled to what was clicked.
        page.locator("#verdict").evaluate("element => element.scrollIntoView()")
        page.wait_for_timeout(700)
        page.screenshot(path=options.out, full_page=options.full)
        browser.close()


def show_all(page: Page) -> None:
    """Open the first case, why it is alike, and what random maps say of the causal map."""
    page.get_by_role("tab", name="Causal map").click()
    page.locator("#cases button.thumbnail-item, #cases .thumbnail-lg").first.click()
    page.wait_for_selector("#case dl")
    page.wait_for_selector("#likeness-case img")
    page.click("#verify")
    page.wait_for_selector("#verification table")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line. Returns 0, or 2 when the picture could not be taken."""
    parser = argparse.ArgumentParser(description="Take a picture of a running medssl page with one image analysed.")
    parser.add_argument("--url", default="http://127.0.0.1:7860", help="address of the app (default %(default)s)")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--image", help="image to upload")
    given.add_argument("--example", type=int, metavar="N", help="the page's own example to take instead, from 1")
    parser.add_argument("--out", required=True, help="PNG file to write")
    parser.add_argument("--width", type=int, default=1280, help="width of the window in pixels (default %(default)s)")
    parser.add_argument("--height", type=int, default=900, help="height of the window in pixels (default %(default)s)")
    parser.add_argument("--dark", action="store_true", help="dark mode")
    parser.add_argument("--full", action="store_true", help="the whole page, with a case opened and the map verified")
    parser.add_argument("--chromium", default=CHROMIUM, help="path of the browser (default %(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for each step (default %(default)s)")
    options = parser.parse_args(arguments)
    if options.image and not Path(options.image).is_file():
        print(f"There is no file {options.image!r}.", file=sys.stderr)
        return 2
    try:
        from playwright.sync_api import Error
    except ImportError:
        print("playwright is not installed; see requirements-dev.txt.", file=sys.stderr)
        return 2
    try:
        take(options)
    except Error as error:
        print(f"No picture was taken: {error.message.splitlines()[0]}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
