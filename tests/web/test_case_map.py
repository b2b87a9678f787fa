"""The map on the page: the image is placed among the cases, and a dot opens its case."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import pytest

from medssl.errors import LibraryError
from medssl.images import Picture
from medssl.web.page import Page
from medssl.web.service import Service
from medssl.web.session import Visit


@pytest.fixture
def panel(tiny_bundles):
    with gr.Blocks():
        page = Page(Service(tiny_bundles))
    return next(panel for panel in page.panels if panel.name == "among-whom")


def test_the_image_is_among_the_cases_once_it_was_searched(panel, tiny_bundles, shapes_image):
    bundle = tiny_bundles["shapes"]
    steps = list(bundle.steps(shapes_image, method="occlusion"))
    assert "ms-map-own" not in panel.blank(bundle)[panel.map] and panel.show(bundle, steps[0], 0.5) == {}
    assert "ms-map-own" in panel.show(bundle, steps[1], 0.5)[panel.map]


def test_a_dot_opens_its_case(panel, tiny_bundles, shapes_image, shapes_analysis):
    bundle = tiny_bundles["shapes"]
    case = shapes_analysis.cases[0]
    panel.service = Service(tiny_bundles)
    alone = panel.open_case(None, "shapes", SimpleNamespace(id=case.id))[panel.case]
    assert case.id in alone and case.label in alone and "Similarity" not in alone
    visit = Visit(Picture.read(shapes_image), analysis=bundle.analyze(shapes_image, explain=False))
    assert f"{case.score:.4f}" in panel.open_case(visit, "shapes", SimpleNamespace(id=case.id))[panel.case]
    with pytest.raises(LibraryError, match="no case"):
        panel.open_case(None, "shapes", SimpleNamespace(id="<script>"))
