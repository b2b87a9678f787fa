"""The part of the page that shows which known cases are similar, and why one of them is."""

from __future__ import annotations

from html import escape

import gradio as gr

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.explain import EXPLAINERS, ViTCX
from medssl.library.library import Case
from medssl.web import render
from medssl.web.served_files import served_png
from medssl.web.session import Visit
from medssl.web.wanted import Stopped

LIKENESS = "likeness"  # the run's name
CHOOSE = '<p class="ms-small">Choose a case to see its facts, and why it is similar.</p>'


class CasesPanel:
    """The gallery, the facts of one case, and the likeness explained on both pictures."""

    def __init__(self) -> None:
        self.gallery = gr.Gallery(
            label="Most similar known cases",
            format="png",
            columns=3,
            allow_preview=False,
            interactive=False,
            buttons=[],
            object_fit="cover",
            elem_id="cases",
        )
        self.case = gr.HTML("", elem_id="case")
        self.why = gr.HTML("", elem_id="why")
        with gr.Row(visible=False, elem_id="likeness") as self.likeness:
            self.own = self.side("Where your image is like the case", "likeness-own")
            self.theirs = self.side("Where the case is like your image", "likeness-case")

    def side(self, label: str, name: str) -> gr.Image:
        """One of the two pictures of a likeness."""
        return gr.Image(
            label=label,
            alt_text=label,
            format="png",
            interactive=False,
            height=220,
            min_width=120,
            buttons=["fullscreen"],
            elem_id=name,
        )

    def blank(self) -> dict:
        """No cases."""
        return {self.gallery: None, self.case: "", **self.no_likeness()}

    def no_likeness(self) -> dict:
        """No likeness explained."""
        return {self.why: "", self.likeness: gr.Row(visible=False), self.own: None, self.theirs: None}

    def stopped(self) -> dict:
        """What stands where the likeness would have appeared."""
        return {self.why: render.note("Stopped. Choose a case again.")}

    def found(self, analysis: Analysis) -> dict:
        """The cases that were found."""
        shown = [(served_png(self.gallery, case.image), render.case_caption(case)) for case in self.shown(analysis)]
        return {self.gallery: shown, self.case: CHOOSE}

    def shown(self, analysis: Analysis | None) -> list[Case]:
        """The cases in the gallery: those with a picture."""
        return [case for case in (analysis and analysis.cases) or [] if case.image is not None]

    def facts(self, visit: Visit | None, event: gr.SelectData) -> dict:
        """All facts of the chosen case, which the visit remembers; the likeness of the one before goes."""
        shown = self.shown(visit and visit.analysis)
        if event.index >= len(shown):
            return {self.case: "", **self.no_likeness()}
        visit.chosen, visit.likeness = event.index, None
        return {self.case: render.case_facts(shown[event.index], event.index + 1), **self.no_likeness()}

    def explained(
        self, visit: Visit | None, bundle: Bundle, method: str, opacity: float, progress: gr.Progress
    ) -> dict:
        """Why the chosen case is similar: a heatmap on each of the two pictures. Ends when another one is chosen."""
        shown = self.shown(visit and visit.analysis)
        if not shown or visit.chosen is None:
            return self.no_likeness()
        chosen = visit.chosen
        able = method if EXPLAINERS[method].explains_cases else ViTCX.method

        def check() -> None:
            if visit.chosen != chosen:
                raise Stopped

        try:
            with visit.run(LIKENESS, progress) as tell:

                def tell_if_chosen(fraction: float, text: str) -> None:
                    check()
                    tell(fraction, text)

                found = visit.analyzer(visit.task, bundle).likeness(shown[chosen], able, tell_if_chosen)
                check()
        except Stopped:
            return self.no_likeness()
        visit.likeness = found
        title = escape(EXPLAINERS[able].title)
        said = f"Why case {chosen + 1} is similar (cosine {found.case.score:.2f}), by {title}."
        if able != method:
            said += f" {escape(EXPLAINERS[method].title)} cannot explain a likeness."
        if not found.explanation.evidence:
            said += " No part of your image moved the similarity: no evidence found."
        return {self.why: render.note(said), self.likeness: gr.Row(visible=True), **self.reblend(visit, opacity)}

    def reblend(self, visit: Visit | None, opacity: float) -> dict:
        """Both pictures of the likeness at that opacity, where there are any."""
        found = visit and visit.likeness
        if not found:
            return {}
        return {
            self.own: served_png(self.own, render.blend(visit.image, found.explanation, opacity)),
            self.theirs: served_png(self.theirs, render.blend(found.case.image, found.mirrored, opacity)),
        }
