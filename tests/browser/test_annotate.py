"""Boxes drawn in a real browser over a copy without any, fitted, and measured on the test split."""

import os
from pathlib import Path

import numpy as np
import pytest

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.bundle.localize import fit_bundle_localizer
from medssl.data.annotations import BOXES
from medssl.data.load import load_data, read_record
from medssl.explain.faithfulness import box_mask, pointing_hit
from medssl.heads.fit_localizer import LocalizerPlan
from tests.conftest import App
from tests.web.test_annotator import without_boxes

ENOUGH = 15
REAL = os.environ.get("MEDSSL_REAL_DATA")


@pytest.fixture(scope="module")
def annotating(lesion_data, tiny_backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotate")
    boxes = without_boxes(lesion_data, folder / "discs")
    arguments = ["--annotate", str(folder / "discs"), "--backbone", str(tiny_backbone)]
    running = App(arguments, folder / "log.txt").wait()
    yield running, folder / "discs", boxes
    running.close()


def click(page, x, y):
    """Click at a point of the shown picture, in fractions of it, once it is drawn."""
    page.wait_for_function(
        "(image => image && image.complete && image.naturalWidth)(document.querySelector('#annotate-picture img'))"
    )
    page.wait_for_timeout(400)  # a picture that has just come still grows into its place
    place = page.evaluate(
        """([x, y]) => {
            const image = document.querySelector('#annotate-picture img');
            const frame = image.getBoundingClientRect(), style = getComputedStyle(image);
            const high = frame.height - parseFloat(style.paddingBottom) - parseFloat(style.paddingTop);
            // A picture is made smaller to fit, never larger (object-fit: scale-down).
            const scale = Math.min(1, frame.width / image.naturalWidth, high / image.naturalHeight);
            return [frame.left + frame.width / 2 + (x - 0.5) * scale * image.naturalWidth,
                    frame.top + high / 2 + (y - 0.5) * scale * image.naturalHeight];
        }""",
        [x, y],
    )
    page.mouse.click(*place)


NEXT = """([name, src]) => {
    const image = document.querySelector('#annotate-picture img');
    return document.querySelector('#annotate-name').innerText !== name && image && image.src !== src
        && image.complete && image.naturalWidth;
}"""


def name_of(page):
    return page.inner_text("#annotate-name")


def opened_at_a_picture(browser, app):
    """A new page, once it shows a picture and its name."""
    page = browser.new_page()
    page.set_default_timeout(20_000)
    page.goto(app.url, wait_until="domcontentloaded")
    page.wait_for_selector("#annotate-picture img")
    page.wait_for_selector("#annotate-name")
    return page


def fit(page):
    """Fit to what was drawn."""
    page.click("#annotate-fit")
    page.wait_for_selector("#annotate-said :text('Fitted to')", timeout=120_000)


def hits_on_test(data, lesion_map):
    """Whether the maximum of each map lies in the true box, over the test pictures that have one."""
    hits = []
    for row in load_data(data):
        if row["split"] == "test" and row[BOXES]:
            heatmap = lesion_map(read_record(row)).heatmap
            hits.append(pointing_hit(heatmap, box_mask(row[BOXES][0], *heatmap.shape)))
    return hits


def draw_boxes(page, boxes):
    """Draw the true boxes of the first ENOUGH pictures that have one; say of the others that they have none."""
    drawn = 0
    while drawn < ENOUGH:
        name, shown = name_of(page), page.get_attribute("#annotate-picture img", "src")
        if name not in boxes:
            page.keyboard.press("0")
        else:
            left, top, right, bottom = boxes[name]
            click(page, left, top)
            page.wait_for_selector("#annotate-said :text('opposite corner')")
            click(page, right, bottom)
            page.wait_for_selector("#annotate-said :text('Saved in boxes.csv')")
            drawn += 1
            shown = page.get_attribute("#annotate-picture img", "src")
            page.keyboard.press("n")
        page.wait_for_function(NEXT, arg=[name, shown])


def test_boxes_are_drawn_fitted_and_found(browser, annotating):
    app, folder, boxes = annotating
    page = opened_at_a_picture(browser, app)
    draw_boxes(page, boxes)
    saved = {row["file_name"]: row[BOXES] for row in load_data(folder) if row[BOXES]}
    assert len(saved) == ENOUGH
    for name, found in saved.items():
        assert np.abs(np.array(found[0]) - boxes[name]).max() < 0.02, "drawn where the clicks were"
    done = int(page.inner_text("#annotate-done"))
    page.keyboard.press("u")
    page.wait_for_function("old => Number(document.querySelector('#annotate-done').innerText) === old - 1", arg=done)
    undone = name_of(page)
    fit(page)
    assert undone not in {row["file_name"] for row in load_data(folder) if row[BOXES]}
    page.close()


def test_the_drawn_boxes_point_on_the_test_split(annotating, lesion_data, tiny_backbone, tmp_path):
    """What a build makes of the boxes that were drawn above; the true boxes of test were never seen."""
    from medssl.bundle.build import build_bundle
    from tests.conftest import UNCHOSEN

    _, folder, _ = annotating
    bundle = build_bundle(folder, "discs", tiny_backbone, progress=False, cache_dir=tmp_path, **UNCHOSEN)
    hits = hits_on_test(lesion_data, lambda image: bundle.open(image).lesion_map())
    print(f"maximum in the box on {len(hits)} test pictures, by {ENOUGH - 1} drawn boxes: {np.mean(hits):.2f}")
    assert np.mean(hits) > 0.7


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="MEDSSL_REAL_DATA is not set: no box was drawn on a real slice")
def test_fifteen_boxes_on_real_brains_point_on_the_test_split(browser, tmp_path):
    """Five boxes a class, drawn on a copy of real slices, with a real encoder; test is looked at once, at the end."""
    place, source = Path(REAL) / "weights" / "vit-tiny-patch16-224", Path(REAL) / "data" / "brain"
    encoder = Backbone.from_pretrained(place)
    boxes = without_boxes(source, tmp_path / "brain")
    app = App(["--annotate", str(tmp_path / "brain"), "--backbone", str(place)], tmp_path / "log.txt").wait()
    try:
        page = opened_at_a_picture(browser, app)
        draw_boxes(page, boxes)
        fit(page)
        page.close()
    finally:
        app.close()
    drawn = load_data(tmp_path / "brain")
    labels = [row["label"] for row in drawn if row[BOXES]]
    assert sorted(labels.count(label) for label in set(labels)) == [5, 5, 5]
    plan = LocalizerPlan(seed=0, progress=False)
    localizer, _ = fit_bundle_localizer(drawn, Embedder.of(encoder), plan, tmp_path / "cache")
    hits = hits_on_test(source, lambda image: localizer.locate(encoder, image))
    print(f"maximum in the box on {len(hits)} real test pictures, by {ENOUGH} drawn boxes: {np.mean(hits):.3f}")
    assert np.mean(hits) > 0.3, "chance is about 0.03"
