"""The report in a real browser: made by one button, downloaded, and opened without a network."""

from __future__ import annotations

from tests.browser.test_page import analyze
from tests.conftest import sample


def test_a_report_is_made_downloaded_and_opens_alone(opened, app, tiny_data, tmp_path):
    page = opened(app.url)
    image = sample(tiny_data["shapes"], "dots")
    analyze(page, image)
    page.click("#report")
    page.wait_for_selector("#report-files a[download]", timeout=90_000)
    with page.expect_download() as started:
        page.locator("#report-files a[download]").first.click()
    path = tmp_path / "report.html"
    started.value.save_as(path)
    alone, asked = page.context.new_page(), []
    alone.on("request", lambda request: asked.append(request.url))
    alone.goto(path.as_uri())
    assert alone.locator(".case").count() == 4 and image.name not in alone.content()
    assert alone.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert all(url.startswith(("file:", "data:")) for url in asked)
    alone.close()
