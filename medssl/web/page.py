"""The page: upload, class, similar cases, heatmap; and the app's endpoints (medssl/web/api.py)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle, suggest_task
from medssl.errors import ImageError
from medssl.images.picture import Picture
from medssl.web import render
from medssl.web.api import NO_FILE, Api
from medssl.web.decoded_uploads import DecodedUploads
from medssl.web.guard import Guard, GuardRules
from medssl.web.panels.heatmap import HeatmapPanel
from medssl.web.panels.panel import LATEST, PRIVATE, QUICK, SLOW, Panel, Updates, Wiring, plain
from medssl.web.panels.registry import ABOVE, BELOW, BESIDE
from medssl.web.pictures import for_screen, make_examples
from medssl.web.plain_answers import PlainAnswers, PlainBlocks
from medssl.web.served_files import served_png
from medssl.web.service import Service
from medssl.web.session import ANALYSIS, Visit
from medssl.web.uploads import read_upload
from medssl.web.wanted import Stopped

CASES_SHOWN = 6
# Uploads, and pictures made from them, are deleted this long after they were written; looked for every minute.
KEPT_SECONDS = 15 * 60


def launch_options(rules: GuardRules | None = None) -> dict:
    """What `Blocks.launch` must be given for this page: its looks, and that nothing is kept, leaked or tracked.

    `rules` say who may ask it what; by default this machine alone.
    """
    middleware = [Middleware(Guard, rules=rules or GuardRules.of("127.0.0.1")), Middleware(PlainAnswers)]
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
        "app_kwargs": {"middleware": middleware},
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
    service = Service(bundles)
    with PlainBlocks(title="medssl", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as demo:
        gr.HTML(render.header([bundle.task for bundle in bundles.values()]), elem_id="header")
        if bundles:
            Page(service)
        else:
            gr.HTML(render.no_bundle(), elem_id="no-bundle-box")
        Api(service)
        gr.HTML(render.limits(KEPT_SECONDS // 60 + 1), elem_id="limits")
    demo.temp_file_sets.append(DecodedUploads())
    # Closed to direct calls, which go round the queue: `/call`, gradio_client and MCP use it.
    return demo.queue(max_size=16, default_concurrency_limit=1, api_open=False)


class Page:
    """The components of the page and what happens between them; answers are shown by its panels."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.first, first = next(iter(service.bundles.items()))
        self.examples_folder = tempfile.TemporaryDirectory(prefix="medssl-examples-")
        self.examples = make_examples(service.bundles, Path(self.examples_folder.name))
        self.visit = gr.State(None, time_to_live=KEPT_SECONDS)
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=2, min_width=320, elem_id="left"):
                self.build_left()
            with gr.Column(scale=4, min_width=320, elem_id="right"):
                self.panels = self.build_right(first)
        self.connect()

    def build_left(self) -> None:
        """Image, task and buttons."""
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
            [(bundle.task.title, name) for name, bundle in self.service.bundles.items()],
            value=self.first,
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

    def build_right(self, bundle: Bundle) -> list[Panel]:
        """The panels, those beside each other in a row that is hidden until there is an answer."""
        panels = [panel(bundle) for panel in ABOVE]
        with gr.Row(visible=False, elem_id="results") as self.results:
            for panel in BESIDE:
                with gr.Column(min_width=300, elem_id=panel.name):
                    panels.append(panel(bundle))
        return panels + [panel(bundle) for panel in BELOW]

    def connect(self) -> None:
        """The events; none of them is an endpoint."""
        controls = next(panel for panel in self.panels if isinstance(panel, HeatmapPanel)).controls
        asked = [self.visit, self.task, *controls]
        outputs = [output for panel in self.panels for output in panel.outputs]
        shown = [self.results, *outputs]
        received = [self.visit, self.preview, self.task, self.suggestion, *shown]
        progress_on = next(panel for panel in self.panels if isinstance(panel, HeatmapPanel)).overlay

        wiring = Wiring(self.service, self.visit, self.task, asked)
        runs = [self.analyze.click(plain(self.run), asked, shown, show_progress_on=progress_on, **SLOW)]
        for panel in self.panels:
            runs += panel.connect(wiring)
        seen = {"show_progress_on": self.preview, "cancels": runs, **SLOW}
        reading = self.upload.upload(plain(self.receive), [self.visit, self.upload], received, **seen)
        taken = [self.upload, *received]
        taking = self.example_gallery.select(plain(self.receive_example), self.visit, taken, **seen)
        self.upload.clear(plain(self.forget), self.visit, received, cancels=[reading, taking, *runs], **QUICK)
        # Of a dropdown's events "blur" comes once after a choice.
        self.task.blur(plain(self.change_task), [self.visit, self.task], shown, cancels=runs, **QUICK)
        said = {"queue": False, "show_progress": "hidden", "cancels": runs, **PRIVATE}
        self.stop.click(plain(self.stop_said), self.visit, outputs, **said)
        opacity = controls[1]
        opacity.input(plain(self.reblend), [self.visit, opacity], outputs, **LATEST, **QUICK)

    def blank(self, task: str) -> Updates:
        """The right column before anything was found, for that task."""
        bundle = self.service.bundle(task)
        return {self.results: gr.Row(visible=False), **merged(panel.blank(bundle) for panel in self.panels)}

    def forget(self, visit: Visit | None) -> Updates:
        """End what runs for the old upload, and an empty page."""
        if visit:
            visit.end()
        return {
            self.visit: None,
            self.preview: None,
            self.task: self.first,
            self.suggestion: "",
            **self.blank(self.first),
        }

    def receive(self, visit: Visit | None, path: str | None) -> Iterator[Updates]:
        """Read an upload, show it and suggest its task. The old results go first, so that an error leaves none."""
        yield self.forget(visit)
        if not path:
            raise ImageError(NO_FILE)
        yield self.received(Visit(read_upload(path)))

    def receive_example(self, visit: Visit | None, event: gr.SelectData) -> Iterator[Updates]:
        """Take an example as if it had been uploaded; its own group is kept out of its cases."""
        yield {self.upload: None, **self.forget(visit)}
        example = self.examples[event.index]
        yield self.received(Visit(Picture.read(example["path"]), group=example["group"]))

    def received(self, visit: Visit) -> Updates:
        """A fresh visit on the page, with the task its image resembles most."""
        with self.service.turn():
            best = suggest_task(self.service.bundles, visit.encodings)[0]
        visit.task = best.name
        task = self.service.bundle(best.name).task
        return {
            self.visit: visit,
            self.preview: served_png(self.preview, for_screen(visit.image)),
            self.task: best.name,
            self.suggestion: render.suggestion(task, best, visit.picture.notes),
            **self.blank(best.name),
        }

    def change_task(self, visit: Visit | None, task: str) -> Updates:
        """Another task was chosen: its figures, and no results of the old one."""
        if visit and visit.task == task:
            return self.stop_said(visit)
        if visit:
            visit.end()
            visit.forget()
            visit.task = task
        return self.blank(task)

    def stop_said(self, visit: Visit | None) -> Updates:
        """Stop what runs (closing its event alone would let it run on), and say so where its result is missing."""
        running = visit.end() if visit else ""
        return merged(panel.stopped(running, visit) for panel in self.panels) if running else gr.skip()

    def reblend(self, visit: Visit | None, opacity: float) -> Updates:
        """All heatmaps at another opacity."""
        return (visit and merged(panel.reblend(visit, opacity) for panel in self.panels)) or gr.skip()

    def steps(
        self, visit: Visit | None, task: str, target: str, method: str, progress: gr.Progress
    ) -> Iterator[Analysis]:
        """The growing analysis of a visit's picture; ends early when Stop was pressed."""
        if visit is None:
            raise ImageError(NO_FILE)
        bundle = self.service.bundle(task)
        try:
            with visit.run(ANALYSIS, progress) as tell:
                opened = visit.analyzer(task, bundle)
                yield from self.service.in_turn(opened.steps(target or None, CASES_SHOWN, method=method, progress=tell))
        except Stopped:
            return

    def run(
        self,
        visit: Visit | None,
        task: str,
        target: str,
        opacity: float,
        method: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[Updates]:
        """Class first, then cases, then the heatmap."""
        bundle = self.service.bundle(task)
        shown: Updates = {self.results: gr.Row(visible=True)}
        for analysis in self.steps(visit, task, target, method, progress):
            if analysis.cases is None:
                visit.forget()
            shown = {**shown, **merged(panel.show(bundle, analysis, opacity) for panel in self.panels)}
            visit.analysis = analysis
            yield shown


def merged(parts: Iterator[Updates]) -> Updates:
    """What all panels change, as one."""
    return {output: value for part in parts for output, value in part.items()}
