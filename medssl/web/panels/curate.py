"""The part of the page, started with --curate only, that makes the image at hand a known case, and takes it back."""

from __future__ import annotations

import gradio as gr

from medssl.bundle.additions import add_opened, undo_addition
from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.errors import BundleError, ImageError
from medssl.web import render
from medssl.web.panels.panel import SLOW, Panel, Updates, Wiring, plain
from medssl.web.session import Visit

NO_IMAGE = "There is no analyzed image to add. Choose one and press Analyze first."
NO_LABEL = "Choose the confirmed label first: the predicted one is never taken for it."
NOTHING_TO_UNDO = "Nothing was added here that could be taken back."


def label_choices(bundle: Bundle) -> list[tuple[str, str]]:
    """The labels of a bundle as (shown, value)."""
    return [(render.pretty(label), label) for label in bundle.labels]


class CuratePanel(Panel):
    """A confirmed label, a group, and two buttons."""

    name = "grow"

    def __init__(self, bundle: Bundle) -> None:
        with gr.Accordion("Add this image to the known cases", open=False, visible=False, elem_id="curate") as self.box:
            with gr.Row(elem_id="curate-row"):
                self.label = gr.Dropdown(
                    label_choices(bundle), value=None, label="Confirmed label", elem_id="curate-label"
                )
                self.group = gr.Textbox(
                    "", label="Patient or slide (empty: its own)", max_lines=1, elem_id="curate-group"
                )
            with gr.Row(elem_id="curate-buttons"):
                self.add = gr.Button("Add as a confirmed case", size="sm", elem_id="curate-add")
                self.undo = gr.Button("Take it back", size="sm", visible=False, elem_id="curate-undo")
            self.said = gr.HTML("", elem_id="curate-said")
        self.changed = [self.undo, self.said]
        self.outputs = [self.box, self.label, *self.changed]

    def blank(self, bundle: Bundle) -> Updates:
        """Nothing to add."""
        return {
            self.box: gr.Accordion(visible=False),
            self.label: gr.Dropdown(choices=label_choices(bundle), value=None),
            self.undo: gr.Button(visible=False),
            self.said: "",
        }

    def show(self, bundle: Bundle, analysis: Analysis, opacity: float) -> Updates:
        """The form, once the image was analyzed."""
        return {self.box: gr.Accordion(visible=True)} if analysis.cases is not None else {}

    def connect(self, wiring: Wiring) -> list:
        """Both buttons."""
        self.service = wiring.service
        chosen = [wiring.visit, wiring.task, self.label, self.group]
        self.add.click(plain(self.add_image), chosen, self.changed, show_progress_on=self.said, **SLOW)
        self.undo.click(plain(self.take_back), chosen[:2], self.changed, show_progress_on=self.said, **SLOW)
        return []

    def add_image(self, visit: Visit | None, task: str, label: str | None, group: str) -> Updates:
        """Put the image at hand into the library, under its confirmed label."""
        if visit is None or visit.analysis is None:
            raise ImageError(NO_IMAGE)
        if not label:
            raise BundleError(NO_LABEL)
        bundle = self.service.bundle(task)
        with self.service.turn(slow=True):
            added = add_opened(self.service.folder(task), visit.analyzer(task, bundle), bundle, label, group)
            self.exchange(visit, task, added.bundle)
        visit.added = added.id
        said = f"Added as “{render.pretty(label)}” ({added.id}). The library holds {len(added.bundle.library)} cases; "
        said += "its figures were measured before."
        return {self.undo: gr.Button(visible=True), self.said: render.note(said)}

    def take_back(self, visit: Visit | None, task: str) -> Updates:
        """Take out what this visit added."""
        if visit is None or not visit.added:
            raise BundleError(NOTHING_TO_UNDO)
        with self.service.turn(slow=True):
            bundle = undo_addition(self.service.folder(task), visit.added, self.service.bundle(task))
            self.exchange(visit, task, bundle)
        visit.added = ""
        said = f"Taken back. The library holds {len(bundle.library)} cases."
        return {self.undo: gr.Button(visible=False), self.said: render.note(said)}

    def exchange(self, visit: Visit, task: str, bundle: Bundle) -> None:
        """Serve the changed bundle from here on; what was opened over the old one is forgotten."""
        self.service.bundles[task] = bundle
        visit.opened.pop(task, None)
