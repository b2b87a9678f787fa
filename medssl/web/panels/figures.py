"""The part of the page that says what was measured of a task, and what the audit of its data found."""

from __future__ import annotations

import gradio as gr

from medssl.bundle.bundle import Bundle
from medssl.web import render
from medssl.web.panels.panel import Panel, Updates


class FiguresPanel(Panel):
    """An accordion with tables, closed at first."""

    name = "how-good"

    def __init__(self, bundle: Bundle) -> None:
        with gr.Accordion("Measured figures and audit of this task", open=False, elem_id="figures-accordion"):
            self.figures = gr.HTML(render.figures(bundle), elem_id="figures")
        self.outputs = [self.figures]

    def blank(self, bundle: Bundle) -> Updates:
        """The figures of that bundle."""
        return {self.figures: render.figures(bundle)}
