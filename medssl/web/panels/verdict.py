"""The part of the page that shows what: the class, how sure it is, and whether the image is of a known kind."""

from __future__ import annotations

import gradio as gr

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.web import render
from medssl.web.panels.panel import Panel, Updates


class VerdictPanel(Panel):
    """The warning of an unfamiliar image, and the class with its prediction set."""

    name = "what"

    def __init__(self, bundle: Bundle) -> None:
        self.warning = gr.HTML("", elem_id="warning")
        self.verdict = gr.HTML(render.empty(), elem_id="verdict")
        self.outputs = [self.warning, self.verdict]

    def blank(self, bundle: Bundle) -> Updates:
        """What to do first."""
        return {self.warning: "", self.verdict: render.empty()}

    def show(self, bundle: Bundle, analysis: Analysis, opacity: float) -> Updates:
        """The class, which comes first."""
        if analysis.cases is not None:
            return {}
        thresholds = bundle.head.thresholds
        return {
            self.warning: render.warning(analysis.prediction, thresholds.familiarity),
            self.verdict: render.verdict(analysis.prediction, bundle.task, thresholds),
        }
