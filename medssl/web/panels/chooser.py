"""The part of the page that chooses one of several pictures of an upload: a slider under the preview."""

from __future__ import annotations

import gradio as gr

from medssl.bundle.bundle import Bundle
from medssl.web import many_html
from medssl.web.panels.panel import Panel, Updates
from medssl.web.session import Visit


class ChooserPanel(Panel):
    """A slider, counted from 1, and what is shown in words; hidden where there is one picture."""

    name = "choice"
    of_upload = True

    def __init__(self, bundle: Bundle) -> None:
        self.slider = gr.Slider(1, 2, 1, step=1, label="Picture", buttons=[], visible=False, elem_id="number")
        self.said = gr.HTML("", elem_id="number-said")
        self.outputs = [self.slider, self.said]

    def blank(self, bundle: Bundle) -> Updates:
        """Nothing to choose from."""
        return {self.slider: gr.Slider(visible=False), self.said: ""}

    def received(self, visit: Visit) -> Updates:
        """The choice, where there is one."""
        if visit.many is None:
            return {}
        count = len(visit.many)
        slider = gr.Slider(maximum=count, value=visit.number + 1, label=f"Picture, of {count}", visible=True)
        return {self.slider: slider, **self.turned(visit)}

    def turned(self, visit: Visit) -> Updates:
        """Which picture is shown."""
        return {self.said: many_html.chosen(visit)} if visit.many is not None else {}
