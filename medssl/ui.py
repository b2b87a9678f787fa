"""The page: upload, class, similar cases, heatmap; and the app's endpoints (medssl/api.py)."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import gradio as gr
from PIL import Image

from medssl import render
from medssl.api import MODEL, NO_FILE, add_endpoints, backbone_name, guarded, pick
from medssl.bundle import Analysis, Bundle, suggest_task
from medssl.errors import ImageError
from medssl.images import read_image

CASES_SHOWN = 6
DEFAULT_OPACITY = 0.55
# Uploads, and pictures made from them, are deleted this long after they were written; looked for every minute.
KEPT_SECONDS = 15 * 60
PREDICTED = ""


class Stopped(Exception):
    """The user pressed Stop while a heatmap was being computed."""


@dataclass
class Visit:
    """One upload in one browser tab: its picture, and what was found so far."""

    image: Image.Image
    group: str | None = None
    analysis: Analysis | None = None
    stop: threading.Event = field(default_factory=threading.Event)


def launch_options() -> dict:
    """What `Blocks.launch` must be given for this page: its looks, and that nothing is kept, leaked or tracked."""
    theme = gr.themes.Soft(
        primary_hue="cyan",
        secondary_hue="cyan",
        neutral_hue="slate",
        font=("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"),
        font_mono=("ui-monospace", "Consolas", "monospace"),
    ).set(
        body_background_fill="*neutral_100",
        body_text_color_subdued="*neutral_600",
        block_title_background_fill="none",
        block_title_background_fill_dark="none",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_padding="0",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_text_color="white",
    )
    return {
        "theme": theme,
        "css_paths": Path(__file__).with_name("page.css"),
        "show_error": False,
        "ssr_mode": False,
        "run_history": False,
        "footer_links": ["api"],
        "state_session_capacity": 64,
        # Slightly above what read_image takes, so that its own plain sentence is met first.
        "max_file_size": "60mb",
    }


def target_choices(bundle: Bundle, analysis: Analysis | None = None) -> list[tuple[str, str]]:
    """The classes to explain as (shown, value); the first entry follows the prediction."""
    said = f" ({render.pretty(analysis.prediction.label)})" if analysis else ""
    return [(f"predicted class{said}", PREDICTED), *((render.pretty(label), label) for label in bundle.labels)]


def build_app(bundles: Mapping[str, Bundle]) -> gr.Blocks:
    """The page and the endpoints over the loaded bundles (task name -> Bundle); none gives a page that says how."""
    tasks = [bundle.task for bundle in bundles.values()]
    with gr.Blocks(title="medssl", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as demo:
        gr.HTML(render.header(tasks), elem_id="header")
        if bundles:
            Page(bundles)
        else:
            gr.HTML(render.NO_BUNDLE, elem_id="no-bundle-box")
        add_endpoints(bundles)
        gr.HTML(render.limits(KEPT_SECONDS // 60 + 1), elem_id="limits")
    return demo.queue(max_size=16, default_concurrency_limit=1)


class Page:
    """The components of the page and what happens between them."""

    def __init__(self, bundles: Mapping[str, Bundle]) -> None:
        self.bundles = bundles
        self.examples_folder = tempfile.TemporaryDirectory(prefix="medssl-examples-")
        self.examples = render.make_examples(bundles, Path(self.examples_folder.name))
        self.visit = gr.State(None, time_to_live=KEPT_SECONDS)
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=2, min_width=320, elem_id="left"):
                self.build_left()
            with gr.Column(scale=4, min_width=320, elem_id="right"):
                self.build_right()
        self.connect()

    def build_left(self) -> None:
        """Image, task and buttons."""
        first = next(iter(self.bundles))
        self.upload = gr.File(label="Image file or DICOM", height=120, elem_id="upload")
        self.preview = gr.Image(
            label="Your image",
            alt_text="the uploaded image",
            format="png",
            interactive=False,
            height=260,
            buttons=["fullscreen"],
            elem_id="preview",
        )
        self.task = gr.Dropdown(
            [(bundle.task.title, name) for name, bundle in self.bundles.items()],
            value=first,
            label="Task",
            filterable=False,
            elem_id="task",
        )
        self.suggestion = gr.HTML("", elem_id="suggestion")
        with gr.Row(elem_id="buttons"):
            self.analyze = gr.Button("Analyze", variant="primary", scale=3, min_width=120, elem_id="analyze")
            self.stop = gr.Button("Stop", variant="stop", scale=1, min_width=80, elem_id="stop")
        self.example_gallery = gr.Gallery(
            [(example["path"], f"{example['task']}: {render.pretty(example['label'])}") for example in self.examples],
            label="Or take an example (its true label below)",
            format="png",
            columns=max(2, min(4, len(self.examples))),
            allow_preview=False,
            interactive=False,
            buttons=[],
            object_fit="cover",
            visible=bool(self.examples),
            elem_id="examples",
        )

    def build_right(self) -> None:
        """Class, heatmap, similar cases and figures."""
        first = next(iter(self.bundles.values()))
        self.warning = gr.HTML("", elem_id="warning")
        self.verdict = gr.HTML(render.EMPTY, elem_id="verdict")
        with gr.Row(visible=False, elem_id="results") as self.results:
            with gr.Column(min_width=300, elem_id="where"):
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
                self.target = gr.Dropdown(
                    target_choices(first),
                    value=PREDICTED,
                    label="Class to explain",
                    filterable=False,
                    elem_id="target",
                )
                self.opacity = gr.Slider(
                    0, 1, DEFAULT_OPACITY, step=0.05, label="Overlay opacity", buttons=[], elem_id="opacity"
                )
            with gr.Column(min_width=300, elem_id="which"):
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
        with gr.Accordion("Measured figures and audit of this task", open=False, elem_id="figures-accordion"):
            self.figures = gr.HTML(self.figures_of(first), elem_id="figures")

    def connect(self) -> None:
        """The events; none of them is an endpoint."""
        shown = [
            self.warning,
            self.verdict,
            self.results,
            self.overlay,
            self.note,
            self.target,
            self.gallery,
            self.case,
        ]
        received = [self.visit, self.preview, self.task, self.suggestion, self.figures, *shown]
        asked = [self.visit, self.task, self.target, self.opacity]
        private = {"api_visibility": "private"}
        slow = {**private, **MODEL}
        quick = {**private, "show_progress": "hidden", "concurrency_limit": 4}
        latest = {"trigger_mode": "always_last"}

        def plain(function: Callable) -> Callable:
            return guarded(function, toast=True)

        running = self.analyze.click(plain(self.run), asked, shown, show_progress_on=self.overlay, **slow)
        explained = [self.overlay, self.note]
        again = self.target.input(
            plain(self.explain_again), asked, explained, show_progress_on=self.overlay, **latest, **slow
        )
        runs = [running, again]
        seen = {"show_progress_on": self.preview, "cancels": runs, **slow}
        reading = self.upload.upload(plain(self.receive), [self.visit, self.upload], received, **seen)
        taken = [self.upload, *received]
        taking = self.example_gallery.select(plain(self.receive_example), self.visit, taken, **seen)
        self.upload.clear(plain(self.clear), self.visit, received, cancels=[reading, taking, *runs], **quick)
        changed = [self.figures, *shown]
        self.task.input(plain(self.change_task), [self.visit, self.task], changed, cancels=runs, **quick)
        self.stop.click(plain(self.stop_said), self.visit, self.note, queue=False, cancels=runs, **private)
        self.opacity.input(plain(self.reblend), [self.visit, self.opacity], self.overlay, **latest, **quick)
        self.gallery.select(plain(self.show_case), self.visit, self.case, **quick)

    def figures_of(self, bundle: Bundle) -> str:
        """The accordion's content."""
        return render.figures(bundle.metrics, bundle.task.modality, backbone_name(bundle))

    def blank(self, name: str) -> dict:
        """The right column before anything was found, for that task."""
        return {
            self.warning: "",
            self.verdict: render.EMPTY,
            self.results: gr.Row(visible=False),
            self.overlay: None,
            self.note: "",
            self.target: gr.Dropdown(choices=target_choices(self.bundles[name]), value=PREDICTED),
            self.gallery: None,
            self.case: "",
        }

    def forget(self, visit: Visit | None) -> dict:
        """End what runs for the old upload, and an empty page."""
        self.stop_run(visit)
        first = next(iter(self.bundles))
        return {self.visit: None, self.preview: None, self.suggestion: "", **self.blank(first)}

    def receive(self, visit: Visit | None, path: str | None) -> Iterator[dict]:
        """Read an upload, show it and suggest its task. The old results go first, so that an error leaves none."""
        yield self.forget(visit)
        if not path:
            raise ImageError(NO_FILE)
        yield self.received(Visit(read_image(path)))

    def receive_example(self, visit: Visit | None, event: gr.SelectData) -> Iterator[dict]:
        """Take an example as if it had been uploaded; its own group is kept out of its cases."""
        yield {self.upload: None, **self.forget(visit)}
        example = self.examples[event.index]
        yield self.received(Visit(read_image(example["path"]), group=example["group"]))

    def received(self, visit: Visit) -> dict:
        """A fresh visit on the page, with the task its image resembles most."""
        found = suggest_task(self.bundles, visit.image)
        best = found[0]
        bundle = self.bundles[best.name]
        title = render.pretty(bundle.task.title)
        said = f"Suggested task: <b>{escape(title)}</b> (familiarity {best.familiarity:.2f}). Change it if it is wrong."
        if not best.familiar:
            said = (
                "This image looks like none of the loaded tasks. Choose the task yourself, and do not trust the class."
            )
        return {
            self.visit: visit,
            self.preview: render.for_screen(visit.image),
            self.task: best.name,
            self.suggestion: f'<div class="ms-note">{said}</div>',
            self.figures: self.figures_of(bundle),
            **self.blank(best.name),
        }

    def clear(self, visit: Visit | None) -> dict:
        """Forget the upload."""
        name, bundle = next(iter(self.bundles.items()))
        return {**self.forget(visit), self.task: name, self.figures: self.figures_of(bundle)}

    def change_task(self, visit: Visit | None, name: str) -> dict:
        """Another task was chosen: its figures, and no results of the old one."""
        self.stop_run(visit)
        if visit:
            visit.analysis = None
        return {self.figures: self.figures_of(pick(self.bundles, name)), **self.blank(name)}

    def stop_run(self, visit: Visit | None) -> None:
        """Make a running explanation end at its next step; closing the event alone would let it run on."""
        if visit:
            visit.stop.set()

    def stop_said(self, visit: Visit | None) -> str | dict:
        """Stop, and say so where a heatmap is missing for it."""
        running = visit is not None and not visit.stop.is_set() and visit.analysis and not visit.analysis.explanation
        self.stop_run(visit)
        return '<div class="ms-note">Stopped. Press Analyze to start again.</div>' if running else gr.skip()

    def steps(self, visit: Visit | None, name: str, target: str, progress: gr.Progress) -> Iterator[Analysis]:
        """`Bundle.steps` for this visit; ends early when Stop was pressed."""
        if visit is None:
            raise ImageError(NO_FILE)
        visit.stop = stop = threading.Event()

        def tell(fraction: float, text: str) -> None:
            if stop.is_set():
                raise Stopped
            progress(fraction, desc=text)

        bundle = pick(self.bundles, name)
        try:
            yield from bundle.steps(visit.image, target or None, CASES_SHOWN, exclude_group=visit.group, progress=tell)
        except Stopped:
            return

    def run(
        self,
        visit: Visit | None,
        name: str,
        target: str,
        opacity: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict]:
        """Class first, then cases, then the heatmap."""
        bundle = pick(self.bundles, name)
        shown: dict = {}
        for analysis in self.steps(visit, name, target, progress):
            visit.analysis = analysis
            if analysis.cases is None:
                thresholds = bundle.head.thresholds
                shown = {
                    self.warning: render.warning(analysis.prediction, thresholds.get("familiarity")),
                    self.verdict: render.verdict(
                        analysis.prediction, bundle.task, thresholds.get("conformal_level", 0.9)
                    ),
                    self.results: gr.Row(visible=True),
                    self.target: gr.Dropdown(choices=target_choices(bundle, analysis)),
                    self.overlay: None,
                    self.note: "",
                    self.gallery: None,
                    self.case: "",
                }
            elif analysis.explanation is None:
                shown[self.gallery] = [
                    (case.image, render.case_caption(case)) for case in analysis.cases if case.image is not None
                ]
                shown[self.case] = '<p class="ms-small">Choose a case to see its facts.</p>'
            else:
                shown.update(self.explained(analysis, opacity))
            yield shown

    def explain_again(
        self,
        visit: Visit | None,
        name: str,
        target: str,
        opacity: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """The heatmap for another class of the same image."""
        for analysis in self.steps(visit, name, target, progress):
            if analysis.explanation is not None:
                visit.analysis = analysis
                return self.explained(analysis, opacity)
        return {self.note: '<div class="ms-note">Stopped. This is the heatmap of the class chosen before.</div>'}

    def explained(self, analysis: Analysis, opacity: float) -> dict:
        """The overlay, and what it shows in words."""
        explanation = analysis.explanation
        label = render.pretty(explanation.target)
        chance = render.percent(explanation.probability)
        said = f"Evidence for <b>{escape(label)}</b> ({chance}), from blue (none) to red (strongest)."
        if not explanation.evidence:
            said = escape(render.NO_EVIDENCE.format(label=label))
        seconds = " · ".join(f"{name} {value:.2f} s" for name, value in analysis.seconds.items())
        note = f'<div class="ms-note">{said}</div><p class="ms-small">{seconds}</p>'
        return {self.overlay: render.blend(analysis, opacity), self.note: note}

    def reblend(self, visit: Visit | None, opacity: float) -> dict | Image.Image:
        """The same heatmap at another opacity."""
        if visit is None or visit.analysis is None or visit.analysis.explanation is None:
            return gr.skip()
        return render.blend(visit.analysis, opacity)

    def show_case(self, visit: Visit | None, event: gr.SelectData) -> str:
        """All facts of the chosen case."""
        cases = visit.analysis.cases if visit and visit.analysis else None
        shown = [case for case in cases or [] if case.image is not None]
        return render.case_facts(shown[event.index], event.index + 1) if event.index < len(shown) else ""
