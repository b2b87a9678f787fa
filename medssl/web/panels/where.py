"""Two questions over one place: what moved the answer (causal map), and where a lesion is seen (lesion map)."""

from __future__ import annotations

import gradio as gr

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.web.panels.heatmap import HeatmapPanel
from medssl.web.panels.lesion import LesionPanel
from medssl.web.panels.panel import Panel, Updates, Wiring
from medssl.web.panels.regions import RegionsPanel
from medssl.web.session import Visit

CAUSAL_TAB, LESION_TAB, REGION_TAB = "Causal map", "Lesion map", "Region"
CAUSAL, LESION = "causal", "lesion"


class WherePanel(Panel):
    """The two maps as tabs, and the search for regions; a tab says what the bundle lacks for it.

    They stay: Gradio 6.31 does not hide a tab's button again once it was seen. The lesion map stands first where the
    class has lesions and the localizer was seen to point at them, else the causal map.
    """

    name = "where"

    def __init__(self, bundle: Bundle) -> None:
        with gr.Tabs(elem_id="maps") as self.tabs:
            with gr.Tab(CAUSAL_TAB, id=CAUSAL, elem_id="causal-tab"):
                self.causal = HeatmapPanel(bundle)
            with gr.Tab(LESION_TAB, id=LESION, elem_id="lesion-tab"):
                self.lesion = LesionPanel(bundle)
            with gr.Tab(REGION_TAB, elem_id="region-tab"):
                self.regions = RegionsPanel(bundle)
        self.parts: tuple[Panel, ...] = (self.causal, self.lesion, self.regions)
        self.outputs = [self.tabs, *(output for part in self.parts for output in part.outputs)]

    def blank(self, bundle: Bundle) -> Updates:
        """Nothing found yet, for the task of that bundle."""
        updates: Updates = {self.tabs: gr.Tabs(selected=CAUSAL)}
        for part in self.parts:
            updates |= part.blank(bundle)
        return updates

    def show(self, bundle: Bundle, analysis: Analysis, opacity: float) -> Updates:
        """What is new for each of them."""
        updates: Updates = {}
        for part in self.parts:
            updates |= part.show(bundle, analysis, opacity)
        # The page sends all updates of before again: skipping takes the choice of the first back.
        updates[self.tabs] = self.first_tab(bundle, analysis) if analysis.cases is None else gr.skip()
        return updates

    def first_tab(self, bundle: Bundle, analysis: Analysis) -> gr.Tabs:
        """The tab to open; chosen once an analysis, with the class, so that the tab a visitor then opens stays."""
        pointed = bundle.localizer and bundle.localizer.points_at(analysis.prediction.label)
        return gr.Tabs(selected=LESION if pointed else CAUSAL)

    def stopped(self, run: str, visit: Visit) -> Updates:
        """What stands where the causal map would have appeared."""
        return self.causal.stopped(run, visit)

    def reblend(self, visit: Visit, opacity: float) -> Updates:
        """The causal map at another opacity."""
        return self.causal.reblend(visit, opacity)

    def connect(self, wiring: Wiring) -> list:
        """The events of all."""
        return [event for part in self.parts for event in part.connect(wiring)]
