"""The page in a real browser: upload, class, cases, heatmap, plain errors, and no request to anywhere else."""

from __future__ import annotations

import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from medssl.bundle.bundle import suggest_task
from tests.conftest import TINY_TASKS, sample

TOAST = "[data-testid='toast-body']"


@pytest.fixture
def page(opened, app):
    """The page, freshly opened."""
    return opened(app.url)


def upload(page, path):
    page.locator("#upload input[type=file]").set_input_files(str(path))


def clear(page):
    """Take the upload away; what is chosen before the box has emptied goes to an input that is about to leave."""
    page.click("#upload button[aria-label='Clear']")
    page.wait_for_selector("#upload button[aria-label='Clear']", state="detached")


def wait_for_result(page):
    page.wait_for_selector("#predicted-class")
    page.wait_for_selector("#heatmap img")
    page.wait_for_function("document.querySelectorAll('#cases .thumbnail-item img').length === 6")


def analyze(page, path):
    upload(page, path)
    page.wait_for_selector("#preview img")
    page.click("#analyze")
    wait_for_result(page)


def test_an_image_gets_class_cases_and_heatmap(page, tiny_bundles, tiny_data):
    image = sample(tiny_data["tints"], "violet")
    upload(page, image)
    page.wait_for_selector("#preview img")
    assert "Suggested task" in page.inner_text("#suggestion")
    title = tiny_bundles["tints"].task.title
    page.click("#task input")
    page.get_by_role("option", name=title).click()
    page.wait_for_timeout(1000)  # a person does not press a button in the same instant
    page.click("#analyze")
    wait_for_result(page)
    expected = tiny_bundles["tints"].analyze(image)
    assert page.inner_text("#predicted-class").startswith(expected.prediction.label)
    bars = page.locator("#verdict .ms-bar")
    assert {bar.get_attribute("data-label") for bar in bars.all()} == {"amber", "jade", "violet"}
    inside = [bar.get_attribute("data-label") for bar in page.locator("#verdict .ms-in").all()]
    assert sorted(inside) == sorted(expected.prediction.prediction_set)
    assert page.evaluate("document.querySelector('#heatmap img').naturalWidth") == 64
    captions = page.locator("#cases .caption-label").all_inner_texts()
    assert [caption.split("\n")[0] for caption in captions] == [case.label for case in expected.cases]
    page.locator("#cases .thumbnail-item").nth(1).click()
    page.wait_for_selector("#case dl")
    facts = page.inner_text("#case")
    second = expected.cases[1]
    for value in (second.id, second.group_id, second.label, f"{second.score:.4f}"):
        assert value in facts


def test_another_class_and_opacity_change_the_picture(page, tiny_data):
    analyze(page, sample(tiny_data["shapes"], "dots"))
    before = page.get_attribute("#heatmap img", "src")
    page.click("#target input")
    page.get_by_role("option", name="stripes", exact=True).click()
    page.wait_for_function("document.querySelector('#note').innerText.includes('stripes')")
    page.wait_for_function("old => document.querySelector('#heatmap img').src !== old", arg=before)
    after = page.get_attribute("#heatmap img", "src")
    page.locator("#opacity input[type=range]").fill("0")
    page.wait_for_function("old => document.querySelector('#heatmap img').src !== old", arg=after)


def test_another_method_is_chosen_and_its_heatmap_verified(page, tiny_data):
    analyze(page, sample(tiny_data["shapes"], "dots"))
    before = page.get_attribute("#heatmap img", "src")
    page.click("#method input")
    page.get_by_role("option", name="Grad-CAM", exact=True).click()
    page.wait_for_function("document.querySelector('#note').innerText.includes('Grad-CAM')")
    page.wait_for_function("old => document.querySelector('#heatmap img').src !== old", arg=before)
    page.click("#verify")
    page.wait_for_selector("#verification table")
    assert "random maps" in page.inner_text("#verification") and page.locator("#verification tbody tr").count() == 3
    page.focus("#method input")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#note').innerText.includes('Occlusion')")
    page.wait_for_function("!document.querySelector('#verification table')")


def test_a_case_shows_why_it_is_similar_on_both_pictures(page, tiny_data):
    analyze(page, sample(tiny_data["shapes"], "dots"))
    page.locator("#cases .thumbnail-item").nth(1).click()
    page.wait_for_selector("#case dl")
    page.wait_for_selector("#likeness-own img")
    page.wait_for_selector("#likeness-case img")
    assert "Why case 2 is similar" in page.inner_text("#why")
    first = page.get_attribute("#likeness-case img", "src")
    page.locator("#cases .thumbnail-item").nth(2).click()
    page.wait_for_function("document.querySelector('#why').innerText.includes('case 3')")
    assert page.get_attribute("#likeness-case img", "src") != first


def test_a_dicom_file_is_read_and_shown(page):
    analyze(page, get_testdata_file("CT_small.dcm"))
    assert page.evaluate("document.querySelector('#preview img').naturalWidth") == 128
    assert page.inner_text("#predicted-class")
    shown = page.inner_text("body")
    assert "CompressedSamples" not in shown and "1CT1" not in shown


def test_an_unfamiliar_image_is_warned_of_and_a_familiar_one_is_not(page, tiny_bundles, tiny_data, tmp_path):
    flat = [Image.new("RGB", (64, 64), color) for color in ("white", "black", "red", "blue")]
    known = [Image.open(sample(tiny_data["shapes"], label)) for label in TINY_TASKS["shapes"]]
    for familiar, candidates in ((False, flat), (True, known)):
        found = (image for image in candidates if familiar_to_any(tiny_bundles, image) is familiar)
        path = tmp_path / f"{familiar}.png"
        next(found).save(path)
        analyze(page, path)
        assert ("do not trust the class" in page.inner_text("#right")) is not familiar
        clear(page)
        page.wait_for_function("!document.querySelector('#preview img')")


def familiar_to_any(bundles, image):
    """Whether the bundle that is suggested for the image knows its like."""
    return suggest_task(bundles, image)[0].familiar


def test_a_broken_file_gets_a_plain_sentence_and_the_page_lives_on(page, broken_file, tiny_data):
    analyze(page, sample(tiny_data["shapes"], "plain"))
    clear(page)
    page.wait_for_function("!document.querySelector('#preview img')")
    upload(page, broken_file)
    page.wait_for_selector(TOAST)
    said = page.inner_text(TOAST)
    assert "image" in said.lower() and "Traceback" not in said and "Error(" not in said and "/tmp" not in said
    assert page.locator("#predicted-class").count() == 0 and page.locator("#preview img").count() == 0
    clear(page)
    analyze(page, sample(tiny_data["shapes"], "stripes"))


def test_analyze_without_an_image_says_what_to_do(page):
    page.click("#analyze")
    page.wait_for_selector(TOAST)
    assert "No image was given" in page.inner_text(TOAST)


def test_an_example_can_be_taken(page):
    page.locator("#examples .thumbnail-item").nth(1).click()
    page.wait_for_selector("#preview img")
    page.click("#analyze")
    wait_for_result(page)


def test_the_page_says_what_it_is_not_for_and_shows_figures(page):
    text = page.inner_text("body")
    assert "Not a medical device" in text and "Uploads are not kept" in text
    page.click("#figures-accordion button")
    page.wait_for_selector("#figures table")
    assert "Accuracy" in page.inner_text("#figures") and "95 % interval" in page.inner_text("#figures")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_wider_than_the_window_and_text_is_legible(page, app, tiny_data, width, theme):
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{app.url}/?__theme={theme}", wait_until="domcontentloaded")
    analyze(page, sample(tiny_data["shapes"], "dots"))
    page.locator("#cases .thumbnail-item").first.click()
    page.wait_for_selector("#likeness-case img")
    page.click("#verify")
    page.wait_for_selector("#verification table")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#predicted-class", ".ms-notice", ".ms-limits li", "#verdict .ms-small"):
        assert contrast(page, selector) >= 4.5, selector


def contrast(page, selector):
    """The WCAG contrast of an element's text against the nearest opaque background behind it."""
    text, behind = page.eval_on_selector(
        selector,
        """element => {
            const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
            canvas.canvas.width = canvas.canvas.height = 1;
            const layers = [];
            for (let at = element; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
            canvas.fillStyle = 'white'; canvas.fillRect(0, 0, 1, 1);
            for (const layer of layers) { canvas.fillStyle = layer; canvas.fillRect(0, 0, 1, 1); }
            const behind = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
            canvas.fillStyle = getComputedStyle(element).color; canvas.fillRect(0, 0, 1, 1);
            return [[...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3), behind];
        }""",
    )

    def luminance(color):
        parts = [value / 255 for value in color]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(text), luminance(behind)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)
