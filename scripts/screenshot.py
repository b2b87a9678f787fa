"""Take a picture of the page after it analysed one image."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

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
    """Open the page, upload, analyse, and write the picture."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=options.chromium,
            headless=True,
            args=list(FLAGS),
            viewport={"width": options.width, "height": 900},
            color_scheme="dark" if options.dark else "light",
        )
        page = browser.new_page()
        page.set_default_timeout(options.timeout * 1000)
        page.goto(options.url + ("?__theme=dark" if options.dark else "?__theme=light"), wait_until="domcontentloaded")
        page.locator("#upload input[type=file]").set_input_files(options.image)
        page.wait_for_selector("#preview img")
        page.click("#analyze")
        page.wait_for_selector("#heatmap img")
        page.wait_for_function("document.querySelectorAll('#cases img').length >= 3")
        page.locator("#cases button.thumbnail-item, #cases .thumbnail-lg").first.click()
        page.wait_for_selector("#case dl")
        page.wait_for_selector("#likeness-case img")
        page.click("#verify")
        page.wait_for_selector("#verification table")
        page.wait_for_timeout(700)
        page.screenshot(path=options.out, full_page=options.full)
        browser.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line. Returns 0, or 2 when the picture could not be taken."""
    parser = argparse.ArgumentParser(description="Take a picture of a running medssl page with one image analysed.")
    parser.add_argument("--url", default="http://127.0.0.1:7860", help="address of the app (default %(default)s)")
    parser.add_argument("--image", required=True, help="image to upload")
    parser.add_argument("--out", required=True, help="PNG file to write")
    parser.add_argument("--width", type=int, default=1280, help="width of the window in pixels (default %(default)s)")
    parser.add_argument("--dark", action="store_true", help="dark mode")
    parser.add_argument("--full", action="store_true", help="the whole page instead of one window")
    parser.add_argument("--chromium", default=CHROMIUM, help="path of the browser (default %(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for each step (default %(default)s)")
    options = parser.parse_args(arguments)
    if not Path(options.image).is_file():
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
