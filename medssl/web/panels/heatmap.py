"""The part of the page that shows where: the heatmap, how it is made, and whether it holds."""

from __future__ import annotations

from html import escape

import gradio as gr

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.errors import ImageError
from medssl.explain import EXPLAINERS, ViTCX
from medssl.web import render
from medssl.web.served_files import served_png
from medssl.web.session import Visit
from medssl.web.wanted import Stopped

DEFAULT_OPACITY = 0.55
PREDICTED = ""
ANALYSIS, HEATMAP, VERIFICATION = "analysis", "heatmap", "verification"  # the names of runs
NO_HEATMAP = "There is no heatmap to verify yet. Press Analyze first."


def target_choices(bundle: Bundle, analysis: Analysis | None = None) -> list[tuple[str, str]]:
    """The classes to explain as (shown, value); the first entry follows the prediction."""
    said = f" ({render.pretty(analysis.prediction.label)})" if analysis else ""
    return [(f"predicted class{said}", PREDICTED), *((render.pretty(label), label) for label in bundle.labels)]


def method_choices(bundle: Bundle) -> list[tuple[str, str]]:
    """The explainers that a bundle can do as (shown, value)."""
    return [(title, method) for method, title in bundle.explainers.items()]


class HeatmapPanel:
    """The components around the heatmap, and what they show."""

    def __init__(self, bundle: Bundle) -> None:
        self.overlay = gr.Image(
            label="Where it sees that",
            alt_text="heatmap over the image",
            format="png",
            interactive=False,
            height=330,
            buttons=["download", "fullscreen"],
            elem_id="heatmap",
        )
        self.note = gr.HTML("", elem_id="note")
        with gr.Row(elem_id="asked"):
            self.target = gr.Dropdown(
                target_choices(bundle),
                value=PREDICTED,
                label="Class to explain",
                filterable=False,
                min_width=220,
                elem_id="target",
            )
            self.method = gr.Dropdown(
                method_choices(bundle),
                value=ViTCX.method,
                label="How it is explained",
                filterable=False,
                min_width=220,
                elem_id="method",
            )
        self.opacity = gr.Slider(
            0, 1, DEFAULT_OPACITY, step=0.05, label="Overlay opacity", buttons=[], elem_id="opacity"
        )
        self.verify = gr.Button("Verify this heatmap", visible=False, size="sm", elem_id="verify")
        self.verification = gr.HTML("", elem_id="verification")

    def blank(self, bundle: Bundle) -> dict:
        """Nothing shown, and the choices of that bundle."""
        return {
            self.overlay: None,
            self.note: "",
            self.target: gr.Dropdown(choices=target_choices(bundle), value=PREDICTED),
            self.method: gr.Dropdown(choices=method_choices(bundle), value=ViTCX.method),
            **self.unverified(),
        }

    def waiting(self, bundle: Bundle, analysis: Analysis) -> dict:
        """No heatmap yet; the first choice names the predicted class."""
        targets = gr.Dropdown(choices=target_choices(bundle, analysis))
        return {self.overlay: None, self.note: "", self.target: targets, **self.unverified()}

    def unverified(self) -> dict:
        """No verification, and none to be had."""
        return {self.verify: gr.Button(visible=False), self.verification: ""}

    def explained(self, analysis: Analysis, opacity: float) -> dict:
        """The overlay, and what it shows in words."""
        explanation = analysis.explanation
        kind = EXPLAINERS[explanation.method]
        label = render.pretty(explanation.target)
        chance = render.percent(explanation.probability)
        said = f"Evidence for <b>{escape(label)}</b> ({chance}), from blue (none) to red (strongest)."
        if not explanation.evidence:
            said = escape(render.NO_EVIDENCE.format(label=label))
        elif kind.caution:
            said = f"<b>{escape(kind.title)}.</b> {escape(kind.caution)}"
        return {
            self.overlay: self.blended(analysis, opacity),
            self.note: render.note(said) + self.cost(analysis),
            self.verify: gr.Button(visible=explanation.evidence),
            self.verification: "",
        }

    def cost(self, analysis: Analysis) -> str:
        """Which explainer made the heatmap, and what each step took."""
        seconds = " · ".join(f"{name} {value:.2f} s" for name, value in analysis.seconds.items())
        explanation = analysis.explanation
        title = escape(EXPLAINERS[explanation.method].title)
        capped = f" · {explanation.masks} masks, the most that are tried" if explanation.settings.get("capped") else ""
        return f'<p class="ms-small">{title}{capped} · {seconds}</p>'

    def stopped(self, name: str, analysis: Analysis | None) -> dict:
        """What stands where the result of that run would have appeared."""
        if name == VERIFICATION:
            return {self.verification: render.note("Stopped. Press the button to verify again.")}
        if name == HEATMAP and analysis and analysis.explanation:
            label = escape(render.pretty(analysis.explanation.target))
            said = f"Stopped. This is still the heatmap of before, for <b>{label}</b>."
            return {self.note: render.note(said) + self.cost(analysis)}
        return {self.note: render.note("Stopped. Press Analyze to start again.")}

    def reblend(self, visit: Visit | None, opacity: float) -> dict:
        """The same heatmap at another opacity, where there is one."""
        if visit is None or visit.analysis is None or visit.analysis.explanation is None:
            return {}
        return {self.overlay: self.blended(visit.analysis, opacity)}

    def blended(self, analysis: Analysis, opacity: float) -> str:
        """The file of the image under its heatmap."""
        return served_png(self.overlay, render.blend(analysis.image, analysis.explanation, opacity), "heatmap.png")

    def verified(self, visit: Visit | None, bundle: Bundle, progress: gr.Progress) -> dict:
        """The shown heatmap's deletion and insertion beside random maps, as a table."""
        if visit is None or visit.analysis is None or visit.analysis.explanation is None:
            raise ImageError(NO_HEATMAP)
        try:
            with visit.run(VERIFICATION, progress) as tell:
                found = visit.analyzer(visit.task, bundle).verification(visit.analysis.explanation, tell)
        except Stopped:
            return {self.verification: ""}
        return {self.verification: render.verification(found)}
