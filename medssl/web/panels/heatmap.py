"""The part of the page that shows where: the heatmap, how it is made, and whether it holds."""

from __future__ import annotations

from dataclasses import replace

import gradio as gr

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.errors import ImageError
from medssl.explain.choice import AUTO
from medssl.report.pictures import blend
from medssl.web import render
from medssl.web.panels.panel import LATEST, SLOW, Panel, Updates, Wiring, plain
from medssl.web.served_files import served_png
from medssl.web.session import ANALYSIS, GONE, Visit
from medssl.web.wanted import Stopped

DEFAULT_OPACITY = 0.55
PREDICTED = ""
HEATMAP, VERIFICATION = "heatmap", "verification"  # the names of runs
NONE_SHOWN = "none: no better than random maps"
NO_HEATMAP = "There is no heatmap to verify yet. Press Analyze first."


def target_choices(bundle: Bundle, analysis: Analysis | None = None) -> list[tuple[str, str]]:
    """The classes to explain as (shown, value); the first entry follows the prediction."""
    said = f" ({render.pretty(analysis.prediction.label)})" if analysis else ""
    return [(f"predicted class{said}", PREDICTED), *((render.pretty(label), label) for label in bundle.labels)]


def method_choices(bundle: Bundle) -> list[tuple[str, str]]:
    """The explainers that a bundle can do as (shown, value), under "none" where none of them beats random maps."""
    none = [] if bundle.explainer_choice.method else [(NONE_SHOWN, AUTO)]
    return [*none, *((title, method) for method, title in bundle.explainers.items())]


def first_method(bundle: Bundle) -> str:
    """The choice that is shown first: what the build found."""
    return bundle.explainer_choice.method or AUTO


class HeatmapPanel(Panel):
    """The components around the heatmap, and what they show. `controls` are target, opacity and method."""

    def __init__(self, bundle: Bundle) -> None:
        self.overlay = gr.Image(
            label="What moved the answer",
            alt_text="heatmap over the image",
            format="png",
            interactive=False,
            height=260,
            buttons=["download", "fullscreen"],
            elem_id="heatmap",
        )
        self.note = gr.HTML("", elem_id="note")
        with gr.Row(elem_id="asked"):
            self.target = self.dropdown("Class to explain", target_choices(bundle), PREDICTED, "target")
            self.method = self.dropdown("How it is explained", method_choices(bundle), first_method(bundle), "method")
        self.opacity = gr.Slider(
            0, 1, DEFAULT_OPACITY, step=0.05, label="Overlay opacity", buttons=[], elem_id="opacity"
        )
        self.verify = gr.Button("Verify this heatmap", visible=False, size="sm", elem_id="verify")
        self.verification = gr.HTML("", elem_id="verification")
        self.controls = [self.target, self.opacity, self.method]
        self.checked = [self.verify, self.verification]
        self.explained = [self.overlay, self.note, *self.checked]
        self.outputs = [*self.explained, self.target, self.method]

    def dropdown(self, label: str, choices: list[tuple[str, str]], value: str, name: str) -> gr.Dropdown:
        """One of the two choices beside the heatmap."""
        return gr.Dropdown(choices, value=value, label=label, filterable=False, min_width=220, elem_id=name)

    def blank(self, bundle: Bundle) -> Updates:
        """Nothing shown, and the choices of that bundle."""
        return {
            **self.no_heatmap(),
            self.target: gr.Dropdown(choices=target_choices(bundle), value=PREDICTED),
            self.method: gr.Dropdown(choices=method_choices(bundle), value=first_method(bundle)),
        }

    def no_heatmap(self) -> Updates:
        """No heatmap, and none to verify."""
        return {self.overlay: None, self.note: "", self.verify: gr.Button(visible=False), self.verification: ""}

    def show(self, bundle: Bundle, analysis: Analysis, opacity: float) -> Updates:
        """With the class, the first choice names it; the heatmap comes last."""
        if analysis.explanation is not None:
            return self.heatmap(analysis, opacity)
        if analysis.explained_by:
            return {**self.no_heatmap(), self.note: render.note(analysis.explained_by)}
        if analysis.cases is None:
            return {**self.no_heatmap(), self.target: gr.Dropdown(choices=target_choices(bundle, analysis))}
        return {}

    def heatmap(self, analysis: Analysis, opacity: float) -> Updates:
        """The overlay, and what it shows in words."""
        return {
            self.overlay: self.blended(analysis, opacity),
            self.note: render.heatmap_note(analysis),
            self.verify: gr.Button(visible=analysis.explanation.evidence),
            self.verification: "",
        }

    def stopped(self, run: str, visit: Visit) -> Updates:
        """What stands where the heatmap or its verification would have appeared."""
        if run == VERIFICATION:
            return {self.verification: render.note("Stopped. Press the button to verify again.")}
        if run == HEATMAP and visit.analysis and visit.analysis.explanation:
            return {self.note: render.heatmap_note(visit.analysis, stopped=True)}
        if run in (HEATMAP, ANALYSIS):
            return {self.note: render.note("Stopped. Press Analyze to start again.")}
        return {}

    def reblend(self, visit: Visit, opacity: float) -> Updates:
        """The same heatmap at another opacity, where there is one."""
        if visit.analysis is None or visit.analysis.explanation is None:
            return {}
        return {self.overlay: self.blended(visit.analysis, opacity)}

    def blended(self, analysis: Analysis, opacity: float) -> str:
        """The file of the image under its heatmap."""
        return served_png(self.overlay, blend(analysis.image, analysis.explanation, opacity), "heatmap.png")

    def connect(self, wiring: Wiring) -> list:
        """Another class or method explains again; the button verifies."""
        self.service = wiring.service
        # Of a dropdown's events "blur" comes once after a choice; "input" comes twice, "select" not from a keyboard.
        again = gr.on(
            [self.target.blur, self.method.blur],
            plain(self.explain_again),
            [*wiring.asked, self.note],
            self.explained,
            show_progress_on=self.overlay,
            **LATEST,
            **SLOW,
        )
        verifying = self.verify.click(
            plain(self.check),
            [wiring.visit, wiring.task],
            self.checked,
            show_progress_on=self.verification,
            **SLOW,
        )
        return [again, verifying]

    def explain_again(
        self,
        visit: Visit | None,
        task: str,
        target: str,
        opacity: float,
        method: str,
        note: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        """The heatmap for another class of the same image, or by another method, unless it is the shown one.

        Raises ImageError where a heatmap's `note` stands on a page whose picture is no longer kept.
        """
        if visit is None and note:
            raise ImageError(GONE)
        if visit is None or visit.analysis is None:
            return gr.skip()
        shown = visit.analysis.explanation
        if shown and (shown.target, shown.method) == (target or visit.analysis.prediction.label, method):
            return gr.skip()
        bundle = self.service.bundle(task)
        choice = bundle.explainer_choice
        explained = {"explanation": None, "explained_by": choice.line(method), "verification": None}
        if choice.resolve(method) is not None:
            try:
                with visit.run(HEATMAP, progress) as tell, self.service.turn(slow=True):
                    tell(0.0, "Explaining the class")
                    opened = visit.analyzer(task, bundle)
                    explanation = opened.explanation(target or None, method, tell)
            except Stopped:
                return gr.skip()
            explained |= {"explanation": explanation, "seconds": dict(opened.seconds)}
        # What the analysis found while this waited its turn is kept.
        visit.analysis = found = replace(visit.analysis, **explained)
        return {**self.no_heatmap(), **self.show(bundle, found, opacity)}

    def check(
        self,
        visit: Visit | None,
        task: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        """The shown heatmap's deletion and insertion beside random maps, as a table."""
        if visit is None or visit.analysis is None or visit.analysis.explanation is None:
            raise ImageError(NO_HEATMAP)
        try:
            with visit.run(VERIFICATION, progress) as tell, self.service.turn(slow=True):
                opened = visit.analyzer(task, self.service.bundle(task))
                verification = opened.verification(visit.analysis.explanation, tell)
        except Stopped:
            return {self.verification: ""}
        return {self.verification: render.verification(verification)}
