"""The part of the page that shows all known cases at once, and the image among them."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import gradio as gr
import numpy as np

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.library.case_map import place_cases
from medssl.report.case_map import SCRIPT, CaseMap, case_map_html, thumbnail_sheet
from medssl.web import render
from medssl.web.panels.panel import QUICK, Panel, Updates, Wiring, plain
from medssl.web.session import Visit


class CaseMapPanel(Panel):
    """An accordion with the map and the facts of the case that was opened on it."""

    name = "among-whom"

    def __init__(self, bundle: Bundle) -> None:
        self.views: WeakKeyDictionary[Bundle, tuple[CaseMap, str]] = WeakKeyDictionary()
        with gr.Accordion("Map of the known cases", open=False, elem_id="map-accordion"):
            view, sheet = self.view(bundle)
            self.sheet = gr.HTML(render.map_sheet(sheet), elem_id="map-sheet")
            self.map = gr.HTML(
                case_map_html(view),
                js_on_load=f"{SCRIPT}\nmedsslCaseMap(element, id => trigger('select', {{id}}));",
                elem_id="case-map",
            )
            self.case = gr.HTML("", elem_id="map-case")
        self.outputs = [self.sheet, self.map, self.case]

    def view(self, bundle: Bundle) -> tuple[CaseMap, str]:
        """A bundle's map and the sheet of its thumbnails, made once."""
        if bundle not in self.views:
            view = CaseMap.of(bundle)
            self.views[bundle] = view, thumbnail_sheet(bundle, view)
        return self.views[bundle]

    def blank(self, bundle: Bundle) -> Updates:
        """The cases alone."""
        view, sheet = self.view(bundle)
        return {self.sheet: render.map_sheet(sheet), self.map: case_map_html(view), self.case: ""}

    def drawn(self, bundle: Bundle, embedding: np.ndarray) -> Updates:
        """The map with the place of an embedding `[D]` on it."""
        view, sheet = self.view(bundle)
        if not len(view.rows):
            return {}
        place = place_cases(bundle.cases, embedding[None], bundle.space)[0]
        # The sheet goes with it: cases may have been added since the empty map was shown.
        return {self.sheet: render.map_sheet(sheet), self.map: case_map_html(view, place)}

    def show(self, bundle: Bundle, analysis: Analysis, opacity: float) -> Updates:
        """The image's place, which comes with the cases."""
        if analysis.cases is None or analysis.explanation is not None or analysis.embedding is None:
            return {}
        return self.drawn(bundle, analysis.embedding)

    def connect(self, wiring: Wiring) -> list:
        """A chosen dot opens its case."""
        self.service = wiring.service
        self.map.select(plain(self.open_case), [wiring.visit, wiring.task], self.case, **QUICK)
        return []

    def open_case(self, visit: Visit | None, task: str, event: gr.EventData) -> Updates:
        """The facts of the case of that dot; its similarity where there is an image to be similar to."""
        bundle = self.service.bundle(task)
        analysis = visit and visit.analysis
        embedding = analysis.embedding if analysis else None
        known = embedding if embedding is not None else np.eye(1, bundle.library.dimension)[0]
        case = bundle.library.find(str(event.id), known)
        return {self.case: render.map_case(case, compared=embedding is not None)}
