"""The part of the page that shows where a localizer sees a lesion, beside the causal map and never mixed with it."""

from __future__ import annotations

from dataclasses import replace

import gradio as gr

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.errors import ImageError
from medssl.heads.localizer import ANY
from medssl.report.lesions import COLOR, STYLES, lesion_picture
from medssl.web import render
from medssl.web.panels.panel import LATEST, QUICK, SLOW, Panel, Updates, Wiring, plain
from medssl.web.served_files import served_png
from medssl.web.session import GONE, Visit

OPACITY = 0.55
NO_LOCALIZER = (
    "This bundle has no localizer. Build it from images with boxes or masks of at least five pictures a class; boxes "
    "are drawn by: medssl serve --annotate FOLDER"
)


def lesion_choices(bundle: Bundle) -> list[tuple[str, str]]:
    """The lesions that can be looked for, as (shown, value): any, then those of each class."""
    known = bundle.localizer.config.labels if bundle.localizer else []
    return [("any lesion", ANY), *((render.pretty(label), label) for label in known)]


class LesionPanel(Panel):
    """The lesion map, what it says, and how it is drawn."""

    name = "lesion"

    def __init__(self, bundle: Bundle) -> None:
        self.picture = gr.Image(
            label="Where a lesion is seen",
            alt_text="lesion map over the image",
            format="png",
            interactive=False,
            height=330,
            buttons=["download", "fullscreen"],
            elem_id="lesion-map",
        )
        self.note = gr.HTML(self.first_note(bundle), elem_id="lesion-note")
        with gr.Row(elem_id="lesion-asked"):
            self.target = gr.Dropdown(
                lesion_choices(bundle),
                value=ANY,
                label="Lesions of",
                filterable=False,
                min_width=160,
                elem_id="lesion-of",
            )
            self.style = gr.Radio(
                [(title, style) for style, title in STYLES.items()],
                value=COLOR,
                label="Drawn as",
                min_width=160,
                elem_id="lesion-style",
            )
        self.opacity = gr.Slider(
            0, 1, OPACITY, step=0.05, label="Overlay opacity", buttons=[], elem_id="lesion-opacity"
        )
        self.outputs = [self.picture, self.note, self.target]
        self.drawn_by = [self.style, self.opacity]

    def first_note(self, bundle: Bundle) -> str:
        """What stands there before a map does."""
        return "" if bundle.localizer else render.note(NO_LOCALIZER)

    def blank(self, bundle: Bundle) -> Updates:
        """Nothing shown, and the lesions that this bundle knows."""
        choices = gr.Dropdown(choices=lesion_choices(bundle), value=ANY)
        return {self.picture: None, self.note: self.first_note(bundle), self.target: choices}

    def show(self, bundle: Bundle, analysis: Analysis, opacity: float) -> Updates:
        """The map, drawn in colour until the choices beside it say otherwise."""
        if analysis.cases is None:
            return self.blank(bundle)
        if analysis.lesion_map is None or analysis.explanation or analysis.explained_by:
            return {}
        return self.drawn(analysis, COLOR, OPACITY)

    def drawn(self, analysis: Analysis, style: str, opacity: float) -> Updates:
        """The map in that style, and what it says in words."""
        found = analysis.lesion_map
        picture = lesion_picture(analysis.image, found, opacity, style)
        return {
            self.picture: served_png(self.picture, picture, "lesion-map.png"),
            self.note: render.lesion_note(found),
        }

    def connect(self, wiring: Wiring) -> list:
        """Another lesion is looked for again; another style or opacity only draws again."""
        self.service = wiring.service
        shown = [self.picture, self.note]
        again = self.target.blur(
            plain(self.look_again),
            [wiring.visit, wiring.task, self.target, *self.drawn_by, self.note],
            shown,
            show_progress_on=self.picture,
            **LATEST,
            **SLOW,
        )
        gr.on(
            [self.style.input, self.opacity.input],
            plain(self.draw_again),
            [wiring.visit, *self.drawn_by],
            shown,
            **LATEST,
            **QUICK,
        )
        return [again]

    def look_again(self, visit: Visit | None, task: str, target: str, style: str, opacity: float, note: str) -> Updates:
        """The map of another class's lesions, unless it is the shown one.

        Raises ImageError where a map's `note` stands on a page whose picture is no longer kept.
        """
        if visit is None and note not in ("", render.note(NO_LOCALIZER)):
            raise ImageError(GONE)
        shown = visit and visit.analysis and visit.analysis.lesion_map
        if not shown or shown.target == target:
            return gr.skip()
        with self.service.turn(slow=True):
            found = visit.analyzer(task, self.service.bundle(task)).lesion_map(target)
        visit.analysis = replace(visit.analysis, lesion_map=found)
        return self.drawn(visit.analysis, style, opacity)

    def draw_again(self, visit: Visit | None, style: str, opacity: float) -> Updates:
        """The same map in another style or at another opacity."""
        if not (visit and visit.analysis and visit.analysis.lesion_map):
            return gr.skip()
        return self.drawn(visit.analysis, style, opacity)
