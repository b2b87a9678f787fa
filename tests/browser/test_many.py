"""Several pictures in a real browser: a series in a zip, the frame slider, a folder's table, and Stop."""

from __future__ import annotations

import csv
import time
import zipfile

import numpy as np
import pytest

from medssl.bundle.many import by_need
from tests.browser.test_accessibility import faults  # noqa: F401  a fixture
from tests.browser.test_page import TOAST, upload, wait_for_result
from tests.conftest import TINY_TASKS, sample
from tests.images.test_pictures import SECOND, one_slice, shuffled, zipped
from tests.pictures import dicom

SLOW = 60_000


@pytest.fixture
def page(opened, app):
    """The page on a small screen, freshly opened."""
    page = opened(app.url)
    page.set_viewport_size({"width": 1366, "height": 768})
    page.set_default_timeout(SLOW)
    return page


def upload_many(page, *paths):
    page.locator("#upload input[type=file]").set_input_files([str(path) for path in paths])
    page.wait_for_selector("#preview img")
    page.wait_for_selector("#all-each")


def series(path, count):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for at in np.random.default_rng(0).permutation(count):
            archive.writestr(f"scan/{at:03d}.dcm", one_slice(int(at) % 250, int(at), number=int(at)))
    return path


def gray(page):
    """The middle of the preview, as the browser drew it."""
    return page.evaluate(
        """async () => {
            const image = document.querySelector('#preview img');
            await image.decode();
            const canvas = document.createElement('canvas').getContext('2d');
            canvas.drawImage(image, 0, 0);
            return canvas.getImageData(image.naturalWidth / 2, image.naturalHeight / 2, 1, 1).data[0];
        }"""
    )


def choose(page, number):
    """The slider at a number, and the page at rest afterwards."""
    page.locator("#number input[type=range]").fill(str(number))
    page.wait_for_selector(f"#number-said :text('Number {number} of')")


def test_a_series_in_a_zip_is_ordered_chosen_from_and_answered_together(page, tmp_path):
    upload_many(page, series(tmp_path / "series.zip", 300))
    assert "300 pictures in 300 files, 1 series" in page.inner_text("#all-said")
    page.wait_for_selector("#number-said :text('Number 151 of 300')")
    assert abs(gray(page) - 150) <= 1
    for number in (1, 41, 240):
        choose(page, number)
        page.wait_for_timeout(300)
        assert abs(gray(page) - (number - 1)) <= 1
    assert page.locator("#analyze").bounding_box()["y"] < 768 - 40
    page.click("#all-together")
    page.wait_for_selector("#all-answer .ms-card", timeout=180_000)
    said = page.inner_text("#all-answer")
    assert (
        "all 300 pictures together" in said and "Pictures that decide" in said and "Known groups most like it" in said
    )
    page.click("#all-answer summary")
    assert "A group's answer is" in page.inner_text("#all-answer details")
    assert page.locator("#all-table tbody tr").count() == 300
    assert page.evaluate("document.documentElement.scrollWidth") <= 1366


def test_the_slider_chooses_the_frame_that_is_analyzed(page, tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (10, 64, 64), np.uint8)
    (tmp_path / "frames.dcm").write_bytes(dicom(frames))
    upload_many(page, tmp_path / "frames.dcm")
    assert "10 pictures in one file" in page.inner_text("#all-said")
    before = page.get_attribute("#preview img", "src")
    choose(page, 7)
    page.wait_for_function("old => document.querySelector('#preview img').src !== old", arg=before)
    page.click("#analyze")
    wait_for_result(page)
    page.wait_for_function("document.querySelector('#heatmap img').naturalWidth === 64")
    choose(page, 8)
    page.wait_for_function("!document.querySelector('#predicted-class')")


def test_a_folder_becomes_a_table_whose_rows_open(page, tiny_bundles, tiny_data, broken_file, tmp_path):
    paths = [sample(tiny_data["shapes"], label) for label in TINY_TASKS["shapes"]]
    upload_many(page, *paths, broken_file)
    page.click("#task input")
    page.get_by_role("option", name=tiny_bundles["shapes"].task.title).click()
    page.wait_for_timeout(1000)  # a person does not press a button in the same instant
    page.click("#all-each")
    page.wait_for_selector("#all-table tbody tr")
    expected = by_need(tiny_bundles["shapes"].analyze_many([*paths, broken_file]))
    rows = page.locator("#all-table tbody tr")
    assert [int(row.get_attribute("data-number")) for row in rows.all()] == [row.number for row in expected]
    assert "not an image" in rows.first.inner_text()
    for row, found in zip(rows.all()[1:], expected[1:], strict=True):
        cells = row.locator("td").all_inner_texts()
        assert cells[1].startswith(found.entry.file) and cells[2] == found.prediction.label
        assert found.nearest.group_id in cells[6]
    with page.expect_download() as started:
        page.click("#all-csv")
    started.value.save_as(tmp_path / "table.csv")
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [row.entry.file for row in expected]
    assert started.value.suggested_filename == "medssl-table.csv"
    last = expected[-1]
    rows.last.locator("button").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#number-said :text('Number {last.number + 1} of 4')")
    page.click("#analyze")
    wait_for_result(page)
    assert page.inner_text("#predicted-class").startswith(last.prediction.label)
    assert page.locator("#all-table tbody tr").count() == 4
    rows.first.click()
    page.wait_for_selector(TOAST)
    assert "cannot be read" in page.inner_text(TOAST)
    page.wait_for_function("n => document.querySelector('#number input').value === n", arg=str(last.number + 1))
    assert page.inner_text("#predicted-class").startswith(last.prediction.label)


PROGRESS = "() => Number(document.querySelector('#all-state').innerText.match(/Picture (\\d+) of 2000/)?.[1] ?? 0)"
TELLING = "#all-state :text-matches('Picture [0-9]+ of 2000')"


def stop_running(page):
    """Press Stop while the table runs and has rows. Returns how many there are then."""
    page.wait_for_selector(TELLING)
    page.wait_for_selector("#all-table tbody tr")
    page.click("#stop")
    page.wait_for_selector("#all-state :text('Stopped after')")
    page.wait_for_timeout(1000)  # in which the run is over, and must leave what Stop said
    done = page.locator("#all-table tbody tr").count()
    assert f"Stopped after {done} of 2000" in page.inner_text("#all-state")
    return done


@pytest.fixture
def long(page, tmp_path):
    """The page with an upload of 2,000 pictures."""
    (tmp_path / "long.dcm").write_bytes(dicom(np.random.default_rng(0).integers(0, 255, (2000, 32, 32), np.uint8)))
    upload_many(page, tmp_path / "long.dcm")
    return page


def test_stop_keeps_the_rows_so_far_and_the_button_goes_on(long):
    long.click("#all-each")
    first = stop_running(long)
    long.click("#all-each")
    assert long.wait_for_function(PROGRESS).json_value() > first
    assert first <= stop_running(long) < 2000
    assert long.is_visible("#all-csv")


def test_one_press_of_stop_is_told_though_the_run_ended_before_its_question_came(long):
    def late(route):
        time.sleep(2)
        route.continue_()

    long.click("#all-each")
    long.wait_for_selector(TELLING)
    # The page cancels the run by a request of its own, and asks then what was stopped.
    long.route("**/queue/join*", late)
    long.route("**/run/*", late)
    long.click("#stop")
    long.wait_for_selector("#all-state :text('Stopped after')")


TOP_ROW = """() => {
    const head = document.querySelector('#all-table th').getBoundingClientRect();
    const rows = [...document.querySelectorAll('#all-table tbody tr')];
    const row = rows.find(row => row.getBoundingClientRect().bottom > head.bottom);
    return [row.dataset.number, row.getBoundingClientRect().top - head.top];
}"""


def test_a_table_grows_while_it_runs_and_what_is_read_stays_in_its_place(long):
    long.click("#all-each")
    long.wait_for_selector("#all-table tbody tr")
    assert not long.is_visible("#all-csv")
    shown = long.locator("#all-table tbody tr").count()
    focused = long.locator("#all-table tbody tr button").nth(30)
    number = focused.inner_text()
    focused.focus()
    long.evaluate("document.querySelector('#all-table .ms-scroll').scrollTop = 700")
    long.wait_for_timeout(300)
    read, place = long.evaluate(TOP_ROW)
    inserted = long.evaluate("document.querySelector('#all-table .ms-scroll').scrollTop")
    long.wait_for_function("n => document.querySelectorAll('#all-table tbody tr').length > n", arg=shown)
    long.wait_for_selector(TELLING)
    still, there = long.evaluate(TOP_ROW)
    assert still == read and abs(there - place) <= 2
    assert long.evaluate("document.querySelector('#all-table .ms-scroll').scrollTop") > inserted  # rows came above it
    assert long.evaluate("document.activeElement.innerText") == number
    assert long.evaluate("document.activeElement.closest('tr').dataset.number") == str(int(number) - 1)
    assert stop_running(long) < 2000


def test_a_file_taken_away_leaves_the_others_and_one_alone_is_as_ever(page, tiny_data):
    paths = [sample(tiny_data["shapes"], label) for label in TINY_TASKS["shapes"][:2]]
    upload_many(page, *paths)
    page.wait_for_selector("#number-said :text('Number 1 of 2')")
    page.locator("#upload tr.file button").first.click()
    page.wait_for_selector("#all-each", state="hidden")
    page.wait_for_selector("#number", state="hidden")
    page.wait_for_selector("#preview img")
    page.click("#upload button[aria-label='Clear']")
    page.wait_for_function("!document.querySelector('#preview img')")
    upload(page, paths[0])
    page.wait_for_selector("#preview img")
    assert not page.locator("#number").is_visible() and not page.locator("#all-each").is_visible()


def test_two_series_have_an_answer_each_until_an_id_says_that_they_are_one(page, tmp_path):
    first, second = shuffled(range(1, 6)), shuffled(range(11, 15), series=SECOND)
    mixed = {f"{at}/{name}": data for at, part in enumerate((first, second)) for name, data in part.items()}
    (tmp_path / "study.zip").write_bytes(zipped(mixed))
    upload_many(page, tmp_path / "study.zip")
    assert page.inner_text("#all-together") == "One answer for each of 2 series"
    page.click("#all-together")
    page.wait_for_function("document.querySelectorAll('#all-answer .ms-card').length === 2")
    cards = page.locator("#all-answer .ms-card").all_inner_texts()
    assert "series 1, 5 pictures" in cards[0] and "series 2, 4 pictures" in cards[1]
    number = int(page.locator("#all-answer .ms-card").nth(1).locator("li button").first.inner_text().split()[1])
    assert number > 5
    page.locator("#all-answer .ms-card").nth(1).locator("li button").first.click()
    page.wait_for_selector(f"#number-said :text('Number {number} of 9')")
    page.locator("#all-group input, #all-group textarea").fill("patient 17")
    page.wait_for_function("document.querySelector('#all-together').innerText === 'One answer for all 9'")
    page.click("#all-together")
    page.wait_for_selector("#all-answer :text('all 9 pictures together, patient 17')")
    assert page.locator("#all-answer .ms-card").count() == 1


@pytest.mark.parametrize(("theme", "width"), [("light", 1366), ("dark", 390)])
def test_nothing_of_it_is_too_wide_or_without_a_name(page, app, tiny_data, faults, theme, width):  # noqa: F811
    page.set_viewport_size({"width": width, "height": 768})
    page.goto(f"{app.url}/?__theme={theme}", wait_until="domcontentloaded")
    page.wait_for_selector("#analyze")
    upload_many(page, *(sample(tiny_data["shapes"], label) for label in TINY_TASKS["shapes"]))
    page.click("#all-together")
    page.wait_for_selector("#all-answer .ms-card")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not faults(page)
