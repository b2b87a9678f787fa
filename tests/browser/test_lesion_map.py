"""The lesion map in a real browser: a tab of its own beside the causal map, drawn in colour or as a contour."""

import json

import numpy as np
import pytest
from PIL import Image

from medssl.cli import query
from tests.browser.test_page import upload, wait_for_result
from tests.conftest import App, sample


@pytest.fixture(scope="module")
def lesion_app(lesion_bundle_folder, tiny_bundle_folders, tmp_path_factory):
    bundles = [str(lesion_bundle_folder), str(tiny_bundle_folders["shapes"])]
    running = App(["--bundle", *bundles], tmp_path_factory.mktemp("lesion-app") / "log.txt").wait()
    yield running
    running.close()


@pytest.fixture
def page(opened, lesion_app):
    return opened(lesion_app.url)


def shown(page):
    return page.get_attribute("#lesion-map img", "src")


def analyze(page, path):
    """All that an analysis of a picture with a lesion shows."""
    upload(page, path)
    page.wait_for_selector("#preview img")
    page.click("#analyze")
    page.wait_for_selector("#lesion-map img")
    page.wait_for_selector("#heatmap img", state="attached")
    page.wait_for_function("document.querySelectorAll('#cases .thumbnail-item img').length === 6")


def test_the_lesion_map_stands_first_until_another_tab_is_chosen(page, lesion_data):
    upload(page, sample(lesion_data, "warm"))
    page.wait_for_selector("#preview img")
    page.click("#analyze")
    page.wait_for_selector("#lesion-map img")
    page.get_by_role("tab", name="Causal map").click()
    page.wait_for_selector("#heatmap img")
    page.wait_for_timeout(1000)
    assert page.locator("#heatmap img").is_visible() and not page.locator("#lesion-map img").is_visible()
    page.click("#analyze")
    page.wait_for_selector("#lesion-map img")


def test_two_questions_over_one_place(page, lesion_data):
    analyze(page, sample(lesion_data, "warm"))
    assert not page.locator("#heatmap img").is_visible()
    said = page.inner_text("#where")
    assert "validation pictures" in said and "does not say what moved the class" in said
    first = shown(page)
    page.get_by_label("Contour").click()
    page.wait_for_function("old => document.querySelector('#lesion-map img').src !== old", arg=first)
    second = shown(page)
    page.click("#lesion-of input")
    page.get_by_role("option", name="cold", exact=True).click()
    page.wait_for_function("old => document.querySelector('#lesion-map img').src !== old", arg=second)
    page.wait_for_function("document.querySelector('#where').innerText.includes('a lesion of cold')")
    page.get_by_label("Color", exact=True).click()
    third = shown(page)
    page.locator("#lesion-opacity input[type=range]").fill("0.1")
    page.wait_for_function("old => document.querySelector('#lesion-map img').src !== old", arg=third)


def test_the_endpoints_say_what_python_says(lesion_app, lesion_bundle, lesion_data, tmp_path):
    from gradio_client import Client, handle_file

    client, image = Client(lesion_app.url, verbose=False), sample(lesion_data, "warm")
    expected = lesion_bundle.open(image)
    found = client.predict(handle_file(str(image)), task="discs", target="warm", api_name="/lesion_map")
    own = expected.lesion_map("warm")
    assert found["box"] == list(own.box) and found["hit_rate"] == own.hit_rate
    gray = np.asarray(Image.open(found["heatmap"])) / 65535
    assert gray.shape == own.heatmap.shape and np.abs(gray - own.heatmap).max() < 1e-3
    whole = client.predict(handle_file(str(image)), task="discs", api_name="/analyze")
    assert whole["lesion_map"]["probability"] == pytest.approx(expected.lesion_map().probability, abs=1e-6)
    regions = client.predict(
        handle_file(str(image)), box="0.2,0.2,0.6,0.6", task="discs", top_k=3, api_name="/similar_regions"
    )
    assert [case["id"] for case in regions["cases"]] == [
        match.case.id for match in expected.regions((0.2, 0.2, 0.6, 0.6), 3)
    ]
    with pytest.raises(Exception, match="box is 'wide'; allowed: left,top,right,bottom"):
        client.predict(handle_file(str(image)), box="wide", task="discs", api_name="/similar_regions")
    with pytest.raises(Exception, match="has no localizer"):
        client.predict(handle_file(str(image)), task="shapes", api_name="/lesion_map")
    given = [
        "--url",
        lesion_app.url,
        "--task",
        "discs",
        "--lesion-map",
        str(tmp_path / "maps"),
        "--box",
        "0.2,0.2,0.6,0.6",
    ]
    assert query.main([str(image), *given, "--out", str(tmp_path / "out.jsonl")]) == 0
    answer = json.loads((tmp_path / "out.jsonl").read_text())
    assert (
        answer["lesion_map"]["box"] == list(expected.lesion_map().box) and len(answer["similar_regions"]["cases"]) == 6
    )
    assert len(list((tmp_path / "maps").iterdir())) == 2


def test_a_bundle_without_a_localizer_says_so(page, tiny_bundles, tiny_data):
    upload(page, sample(tiny_data["shapes"], "dots"))
    page.wait_for_selector("#preview img")
    page.click("#task input")
    page.get_by_role("option", name=tiny_bundles["shapes"].task.title).click()
    page.wait_for_timeout(1000)  # a person does not press a button in the same instant
    page.click("#analyze")
    wait_for_result(page)
    assert page.get_by_role("tab", name="Causal map").is_visible()
    page.get_by_role("tab", name="Lesion map").click()
    page.wait_for_selector("#lesion-note :text('This bundle has no localizer')")
    page.get_by_role("tab", name="Region").click()
    page.wait_for_selector("#region-note :text('no regions to compare with')")
    assert not page.locator("#similar-by-lesion").is_visible()


def test_two_clicks_find_regions_and_the_lesion_does_by_a_button(page, lesion_data):
    analyze(page, sample(lesion_data, "warm"))
    page.get_by_role("tab", name="Region").click()
    page.wait_for_selector("#region-picture img")
    box = page.locator("#region-picture img").bounding_box()
    center = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    before = page.get_attribute("#region-picture img", "src")
    page.wait_for_function("document.querySelector('#region-picture img').complete")
    page.mouse.click(center[0] - 60, center[1] - 60)
    page.wait_for_selector("#region-note :text('opposite corner')")
    # A click on a picture that is not there yet has no place in it.
    page.wait_for_function("old => document.querySelector('#region-picture img').src !== old", arg=before)
    page.wait_for_function("document.querySelector('#region-picture img').complete")
    page.mouse.click(center[0] + 60, center[1] + 60)
    cases = "document.querySelectorAll('#region-cases .thumbnail-item img').length === 6"
    page.wait_for_function(cases)
    first = page.get_attribute("#region-cases .thumbnail-item img", "src")
    page.click("#similar-by-lesion")
    page.wait_for_function(
        "old => document.querySelector('#region-cases .thumbnail-item img')?.src !== old && " + cases, arg=first
    )
    captions = page.locator("#region-cases .caption-label").all_inner_texts()
    assert sum(caption.startswith("warm") for caption in captions) >= 4
