"""The part of the page that shows which known cases are similar, and why one of them is."""

from __future__ import annotations

import gradio as gr
from gradio.blocks import Block

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.errors import ImageError
from medssl.explain import EXPLAINERS, ViTCX
from medssl.explain.choice import AUTO
from medssl.library.library import Case
from medssl.report.pictures import blend
from medssl.web import render
from medssl.web.panels.panel import LATEST, QUICK, SLOW, Panel, Updates, Wiring, plain
from medssl.web.served_files import served_png
from medssl.web.session import GONE, Visit
from medssl.web.wanted import Stopped

LIKENESS = "likeness"  # the run's name
CHOOSE = "Choose a case to see its facts, and why it is similar."


class CasesPanel(Panel):
    """The gallery, the facts of one case, and the likeness explained on both pictures."""

    name = "which"

    def __init__(self, bundle: Bundle) -> None:
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
        with gr.Row(visible=False, elem_id="likeness") as self.row:
            self.own = self.side("Where your image is like the case", "likeness-own")
            self.theirs = self.side("Where the case is like your image", "likeness-case")
        self.likeness = [self.why, self.row, self.own, self.theirs]
        self.outputs = [self.gallery, self.case, *self.likeness]

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

    def blank(self, bundle: Bundle) -> Updates:
        """No cases."""
        return {self.gallery: None, self.case: "", **self.no_likeness()}

    def no_likeness(self) -> Updates:
        """No likeness explained."""
        return {self.why: "", self.row: gr.Row(visible=False), self.own: None, self.theirs: None}

    def show(self, bundle: Bundle, analysis: Analysis, opacity: float) -> Updates:
        """The cases, which come second."""
        if analysis.cases is None:
            return self.blank(bundle)
        if analysis.explanation is not None or analysis.lesion_map is not None:
            return {}  # the steps after it: a case may have been opened
        shown = [(served_png(self.gallery, case.image), render.case_caption(case)) for case in pictured(analysis)]
        return {self.gallery: shown, self.case: render.small(CHOOSE)}

    def changed_by(self, visit: Visit) -> list[Block]:
        """The facts of an opened case, and why it is similar."""
        return [] if visit.chosen is None else [self.case, *self.likeness]

    def stopped(self, run: str, visit: Visit) -> Updates:
        """What stands where the likeness would have appeared."""
        return {self.why: render.note("Stopped. Choose a case again.")} if run == LIKENESS else {}

    def reblend(self, visit: Visit, opacity: float) -> Updates:
        """Both pictures of the likeness at that opacity, where there are any."""
        likeness = visit.likeness
        if likeness is None:
            return {}
        return {
            self.own: served_png(self.own, blend(visit.image, likeness.explanation, opacity)),
            self.theirs: served_png(self.theirs, blend(likeness.case.image, likeness.mirrored, opacity)),
        }

    def connect(self, wiring: Wiring) -> list:
        """A chosen case shows its facts at once, then why it is similar.

        Gradio's "always_last" repeats the event it was busy with, old choice and all. So every choice is noted in the
        visit at once, and the comparison reads it there.
        """
        self.service = wiring.service
        choosing = self.gallery.select(
            plain(self.choose), wiring.visit, [self.case, *self.likeness], trigger_mode="multiple", **QUICK
        )
        comparing = choosing.success(
            plain(self.compare), wiring.asked, self.likeness, show_progress_on=self.why, **LATEST, **SLOW
        )
        return [comparing]

    def choose(self, visit: Visit | None, event: gr.SelectData) -> Updates:
        """All facts of the chosen case, which the visit remembers; the likeness of the one before goes."""
        if visit is None:
            raise ImageError(GONE)
        shown = pictured(visit.analysis)
        if event.index >= len(shown):
            return {self.case: "", **self.no_likeness()}
        visit.chosen, visit.likeness = event.index, None
        return {self.case: render.case_facts(shown[event.index], event.index + 1), **self.no_likeness()}

    def compare(
        self,
        visit: Visit | None,
        task: str,
        target: str,  # noqa: ARG002
        opacity: float,
        method: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        """Why the chosen case is similar: a heatmap on each of the two pictures. Ends when another one is chosen."""
        shown = pictured(visit and visit.analysis)
        if not shown or visit.chosen is None:
            return self.no_likeness()
        chosen = visit.chosen
        asked = ViTCX.method if method == AUTO else method
        able = asked if EXPLAINERS[asked].explains_cases else ViTCX.method

        def check_chosen() -> None:
            if visit.chosen != chosen:
                raise Stopped

        try:
            with visit.run(LIKENESS, progress) as tell, self.service.turn(slow=True):

                def tell_if_chosen(fraction: float, text: str) -> None:
                    check_chosen()
                    tell(fraction, text)

                opened = visit.analyzer(task, self.service.bundle(task))
                likeness = opened.likeness(shown[chosen], able, tell_if_chosen)
                check_chosen()
        except Stopped:
            return self.no_likeness()
        visit.likeness = likeness
        return {
            self.why: render.likeness_note(likeness, chosen + 1, able, asked),
            self.row: gr.Row(visible=True),
            **self.reblend(visit, opacity),
        }


def pictured(analysis: Analysis | None) -> list[Case]:
    """The cases in the gallery: those with a picture."""
    return [case for case in (analysis and analysis.cases) or [] if case.image is not None]
