"""The page: upload, class, similar cases, heatmap; and the app's endpoints (medssl/web/api.py)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from html import escape
from importlib.util import find_spec
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle, suggest_task
from medssl.errors import ImageError
from medssl.images.picture import Picture
from medssl.web import render
from medssl.web.api import MODEL, NO_FILE, Api, backbone_name, guarded, pick
from medssl.web.coverage import coverage_html
from medssl.web.decoded_uploads import DecodedUploads
from medssl.web.guard import Guard, GuardRules, allowed_hosts
from medssl.web.panels.cases import LIKENESS, CasesPanel
from medssl.web.panels.heatmap import ANALYSIS, HEATMAP, HeatmapPanel
from medssl.web.served_files import served_png
from medssl.web.session import Visit
from medssl.web.uploads import read_upload
from medssl.web.wanted import Stopped

CASES_SHOWN = 6
# Uploads, and pictures made from them, are deleted this long after they were written; looked for every minute.
KEPT_SECONDS = 15 * 60


def launch_options(rules: GuardRules | None = None) -> dict:
    """What `Blocks.launch` must be given for this page: its looks, and that nothing is kept, leaked or tracked.

    `rules` say who may ask it what; by default this machine alone.
    """
    guard = Middleware(Guard, rules=rules or GuardRules(allowed_hosts("127.0.0.1")))
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
        "enable_monitoring": False,
        "app_kwargs": {"middleware": [guard]},
        "ssr_mode": False,
        "run_history": False,
        "footer_links": ["api"],
        # The endpoints as tools of an assistant, where gradio's extra is installed (as it is on a Space).
        "mcp_server": find_spec("mcp") is not None,
        "state_session_capacity": 64,
        # Slightly above what read_image takes, so that its own plain sentence is met first.
        "max_file_size": "60mb",
    }


def build_app(bundles: Mapping[str, Bundle]) -> gr.Blocks:
    """The page and the endpoints over the loaded bundles (task name -> Bundle); none gives a page that says how."""
    tasks = [bundle.task for bundle in bundles.values()]
    with gr.Blocks(title="medssl", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as demo:
        gr.HTML(render.header(tasks), elem_id="header")
        if bundles:
            Page(bundles)
        else:
            gr.HTML(render.NO_BUNDLE, elem_id="no-bundle-box")
        Api(bundles)
        gr.HTML(render.limits(KEPT_SECONDS // 60 + 1), elem_id="limits")
    demo.temp_file_sets.append(DecodedUploads())
    # Closed to direct calls, which go round the queue: `/call`, gradio_client and MCP use it.
    return demo.queue(max_size=16, default_concurrency_limit=1, api_open=False)


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
                self.where = HeatmapPanel(first)
            with gr.Column(min_width=300, elem_id="which"):
                self.which = CasesPanel()
        with gr.Accordion("Measured figures and audit of this task", open=False, elem_id="figures-accordion"):
            self.figures = gr.HTML(self.figures_of(first), elem_id="figures")

    def connect(self) -> None:
        """The events; none of them is an endpoint."""
        where, which = self.where, self.which
        checked = [where.verify, where.verification]
        explained = [where.overlay, where.note, *checked]
        likeness = [which.why, which.likeness, which.own, which.theirs]
        found = [which.gallery, which.case, *likeness]
        shown = [self.warning, self.verdict, self.results, *explained, where.target, where.method, *found]
        received = [self.visit, self.preview, self.task, self.suggestion, self.figures, *shown]
        asked = [self.visit, self.task, where.target, where.opacity, where.method]
        private = {"api_visibility": "private"}
        slow = {**private, **MODEL}
        quick = {**private, "show_progress": "hidden", "concurrency_limit": 4}
        latest = {"trigger_mode": "always_last"}

        def plain(function: Callable) -> Callable:
            return guarded(function, toast=True)

        # Of a dropdown's events "blur" comes once after a choice; "input" comes twice, "select" not from a keyboard.
        running = self.analyze.click(plain(self.run), asked, shown, show_progress_on=where.overlay, **slow)
        again = gr.on(
            [where.target.blur, where.method.blur],
            plain(self.explain_again),
            asked,
            explained,
            show_progress_on=where.overlay,
            **latest,
            **slow,
        )
        verifying = where.verify.click(
            plain(self.verify), [self.visit, self.task], checked, show_progress_on=where.verification, **slow
        )
        # Gradio's "always_last" repeats the event it was busy with, old choice and all. So every choice is noted in the
        # visit at once, and the comparison reads it there.
        choosing = which.gallery.select(
            plain(which.facts), self.visit, [which.case, *likeness], trigger_mode="multiple", **quick
        )
        comparing = choosing.success(
            plain(self.compare),
            [self.visit, self.task, where.method, where.opacity],
            likeness,
            show_progress_on=which.why,
            **latest,
            **slow,
        )
        runs = [running, again, verifying, comparing]
        seen = {"show_progress_on": self.preview, "cancels": runs, **slow}
        reading = self.upload.upload(plain(self.receive), [self.visit, self.upload], received, **seen)
        taken = [self.upload, *received]
        taking = self.example_gallery.select(plain(self.receive_example), self.visit, taken, **seen)
        self.upload.clear(plain(self.clear), self.visit, received, cancels=[reading, taking, *runs], **quick)
        changed = [self.figures, *shown]
        self.task.blur(plain(self.change_task), [self.visit, self.task], changed, cancels=runs, **quick)
        said = [where.note, where.verification, which.why]
        self.stop.click(plain(self.stop_said), self.visit, said, queue=False, cancels=runs, **private)
        pictures = [where.overlay, which.own, which.theirs]
        where.opacity.input(plain(self.reblend), [self.visit, where.opacity], pictures, **latest, **quick)

    def figures_of(self, bundle: Bundle) -> str:
        """The accordion's content."""
        coverage = coverage_html(bundle.metrics, bundle.head.thresholds)
        return render.figures(bundle.metrics, bundle.task.modality, backbone_name(bundle), coverage)

    def blank(self, name: str) -> dict:
        """The right column before anything was found, for that task."""
        return {
            self.warning: "",
            self.verdict: render.EMPTY,
            self.results: gr.Row(visible=False),
            **self.where.blank(self.bundles[name]),
            **self.which.blank(),
        }

    def forget(self, visit: Visit | None) -> dict:
        """End what runs for the old upload, and an empty page."""
        if visit:
            visit.end()
        first = next(iter(self.bundles))
        return {self.visit: None, self.preview: None, self.suggestion: "", **self.blank(first)}

    def receive(self, visit: Visit | None, path: str | None) -> Iterator[dict]:
        """Read an upload, show it and suggest its task. The old results go first, so that an error leaves none."""
        yield self.forget(visit)
        if not path:
            raise ImageError(NO_FILE)
        yield self.received(Visit(read_upload(path)))

    def receive_example(self, visit: Visit | None, event: gr.SelectData) -> Iterator[dict]:
        """Take an example as if it had been uploaded; its own group is kept out of its cases."""
        yield {self.upload: None, **self.forget(visit)}
        example = self.examples[event.index]
        yield self.received(Visit(Picture.read(example["path"]), group=example["group"]))

    def received(self, visit: Visit) -> dict:
        """A fresh visit on the page, with the task its image resembles most."""
        found = suggest_task(self.bundles, visit.encodings)
        best = found[0]
        bundle = self.bundles[best.name]
        visit.task = best.name
        title = render.pretty(bundle.task.title)
        said = f"Suggested task: <b>{escape(title)}</b> (familiarity {best.familiarity:.2f}). Change it if it is wrong."
        if best.familiar is False:
            said = (
                "This image looks like none of the loaded tasks. Choose the task yourself, and do not trust the class."
            )
        return {
            self.visit: visit,
            self.preview: served_png(self.preview, render.for_screen(visit.image)),
            self.task: best.name,
            self.suggestion: render.note(said) + "".join(render.note(escape(note)) for note in visit.picture.notes),
            self.figures: self.figures_of(bundle),
            **self.blank(best.name),
        }

    def clear(self, visit: Visit | None) -> dict:
        """Forget the upload."""
        name, bundle = next(iter(self.bundles.items()))
        return {**self.forget(visit), self.task: name, self.figures: self.figures_of(bundle)}

    def change_task(self, visit: Visit | None, name: str) -> dict:
        """Another task was chosen: its figures, and no results of the old one."""
        if visit and visit.task == name:
            return self.stop_said(visit)
        if visit:
            visit.end()
            visit.forget()
            visit.task = name
        return {self.figures: self.figures_of(pick(self.bundles, name)), **self.blank(name)}

    def stop_said(self, visit: Visit | None) -> dict:
        """Stop what runs (closing its event alone would let it run on), and say so where its result is missing."""
        running = visit.end() if visit else ""
        if not running:
            return gr.skip()
        return self.which.stopped() if running == LIKENESS else self.where.stopped(running, visit.analysis)

    def reblend(self, visit: Visit | None, opacity: float) -> dict:
        """All heatmaps at another opacity."""
        return {**self.where.reblend(visit, opacity), **self.which.reblend(visit, opacity)} or gr.skip()

    def steps(
        self, run: str, visit: Visit | None, name: str, target: str, method: str, progress: gr.Progress
    ) -> Iterator[Analysis]:
        """`Bundle.steps` for this visit, as a run of that name; ends early when Stop was pressed."""
        if visit is None:
            raise ImageError(NO_FILE)
        bundle = pick(self.bundles, name)
        try:
            with visit.run(run, progress) as tell:
                opened = visit.analyzer(name, bundle)
                yield from opened.steps(target or None, CASES_SHOWN, method=method, progress=tell)
        except Stopped:
            return

    def run(
        self,
        visit: Visit | None,
        name: str,
        target: str,
        opacity: float,
        method: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict]:
        """Class first, then cases, then the heatmap."""
        bundle = pick(self.bundles, name)
        shown: dict = {}
        for analysis in self.steps(ANALYSIS, visit, name, target, method, progress):
            if analysis.cases is None:
                visit.forget()
                thresholds = bundle.head.thresholds
                shown = {
                    self.warning: render.warning(analysis.prediction, thresholds.familiarity),
                    self.verdict: render.verdict(analysis.prediction, bundle.task, thresholds),
                    self.results: gr.Row(visible=True),
                    **self.where.waiting(bundle, analysis),
                    **self.which.blank(),
                }
            elif analysis.explanation is None:
                shown.update(self.which.found(analysis))
            else:
                shown.update(self.where.explained(analysis, opacity))
            visit.analysis = analysis
            yield shown

    def explain_again(
        self,
        visit: Visit | None,
        name: str,
        target: str,
        opacity: float,
        method: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """The heatmap for another class of the same image, or by another method, unless it is the shown one."""
        analysis = visit and visit.analysis
        if analysis and analysis.explanation:
            shown = analysis.explanation
            if (shown.target, shown.method) == (target or analysis.prediction.label, method):
                return gr.skip()
        for analysis in self.steps(HEATMAP, visit, name, target, method, progress):
            if analysis.explanation is not None:
                visit.analysis = analysis
                return self.where.explained(analysis, opacity)
        return gr.skip()

    def verify(
        self,
        visit: Visit | None,
        name: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Whether the shown heatmap holds."""
        return self.where.verified(visit, pick(self.bundles, name), progress)

    def compare(
        self,
        visit: Visit | None,
        name: str,
        method: str,
        opacity: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Why the chosen case is similar."""
        return self.which.explained(visit, pick(self.bundles, name), method, opacity, progress)
