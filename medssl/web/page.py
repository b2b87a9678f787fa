"""The page: upload, class, similar cases, heatmap; and the app's endpoints (medssl/web/api.py)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle, suggest_task
from medssl.errors import ImageError
from medssl.images.picture import Picture
from medssl.report.pictures import for_screen
from medssl.web import render
from medssl.web.api import NO_FILE, Api
from medssl.web.api_many import ManyApi
from medssl.web.decoded_uploads import DecodedUploads
from medssl.web.guard import Guard, GuardRules
from medssl.web.panels.chooser import ChooserPanel
from medssl.web.panels.panel import LATEST, PRIVATE, QUICK, Panel, Updates, Wiring, first_ending, plain
from medssl.web.panels.registry import ABOVE, BELOW, BESIDE, CURATION, LEFT
from medssl.web.panels.where import WherePanel
from medssl.web.pictures import make_examples
from medssl.web.plain_answers import PlainAnswers, PlainBlocks
from medssl.web.served_files import served_png
from medssl.web.service import ANALYSES, MODEL, Service
from medssl.web.session import ANALYSIS, GONE, Visit
from medssl.web.wanted import Stopped

CASES_SHOWN = 6
PAGE_SCRIPT = Path(__file__).with_name("page.js").read_text("utf-8")
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
        button_secondary_background_fill_hover_dark="*primary_800",
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


def build_app(bundles: Mapping[str, Bundle], folders: Mapping[str, Path] | None = None) -> gr.Blocks:
    """The page and the endpoints over the loaded bundles (task name -> Bundle); none gives a page that says how.

    `folders` are those of the bundles whose library visitors may add to; none by default.
    """
    service = Service(bundles, folders)
    with PlainBlocks(title="medssl", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as demo:
        gr.HTML(render.header([bundle.task for bundle in bundles.values()]), elem_id="header")
        if bundles:
            gr.HTML(render.tour(), js_on_load=PAGE_SCRIPT, elem_id="tour")
            page = Page(service)
            demo.unload(page.tab_closed)
        else:
            gr.HTML(render.no_bundle(), elem_id="no-bundle-box")
        Api(service)
        ManyApi(service)
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
                left = self.build_left(first)
            with gr.Column(scale=4, min_width=320, elem_id="right"):
                self.panels = [*left, *self.build_right(first)]
        self.connect()

    def build_left(self, bundle: Bundle) -> list[Panel]:
        """Image, task and buttons. Returns the panels among them."""
        self.upload = gr.File(label="Image files, DICOM or zip", file_count="multiple", height=130, elem_id="upload")
        self.preview = gr.Image(
            label="Your image",
            alt_text="the uploaded image",
            format="png",
            interactive=False,
            height=240,
            buttons=["fullscreen"],
            elem_id="preview",
        )
        panels = [panel(bundle) for panel in LEFT]
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
        return panels

    def build_examples(self) -> None:
        """Examples to begin with: large while there is no result, below it after."""
        self.example_gallery = gr.Gallery(
            [
                (
                    example["path"],
                    render.example_sentence(self.service.bundle(example["task"]).task, example["label"]),
                )
                for example in self.examples
            ],
            label="Or take an example",
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
        self.build_examples()
        with gr.Row(visible=False, elem_id="results") as self.results:
            for panel in BESIDE:
                with gr.Column(min_width=300, elem_id=panel.name):
                    panels.append(panel(bundle))
        below = (*CURATION, *BELOW) if self.service.folders else BELOW
        return panels + [panel(bundle) for panel in below]

    def connect(self) -> None:
        """The events; none of them is an endpoint."""
        where = next(panel for panel in self.panels if isinstance(panel, WherePanel))
        chooser = next(panel for panel in self.panels if isinstance(panel, ChooserPanel))
        controls = where.causal.controls
        asked = [self.visit, self.task, *controls]
        outputs = [output for panel in self.panels for output in panel.outputs]
        shown = [self.results, *outputs]
        received = [self.visit, self.preview, self.task, self.suggestion, *shown]

        wiring = Wiring(self.service, self.visit, self.task, asked, chooser.slider)
        analysis = {"show_progress_on": where.causal.overlay, **PRIVATE, **ANALYSES}
        of_picture = [self.analyze.click(plain(self.run), asked, shown, **analysis)]
        of_upload = []
        for panel in self.panels:
            (of_upload if panel.of_upload else of_picture).extend(panel.connect(wiring))
        runs = [*of_picture, *of_upload]
        turning, turned = [self.visit, chooser.slider], [self.visit, self.preview, *shown]
        turn = first_ending(of_picture, chooser.slider.change, plain(self.turn), turning, turned, **LATEST, **QUICK)
        reading = [turn, *self.connect_upload([turn, *runs], received)]
        first_ending([*reading, *runs], self.upload.clear, plain(self.forget), self.visit, received, **QUICK)
        # Of a dropdown's events "blur" comes once after a choice.
        chosen = [self.visit, self.task]
        first_ending(runs, self.task.blur, plain(self.change_task), chosen, shown, **QUICK)
        said = {"queue": False, "show_progress": "hidden", **PRIVATE}
        first_ending(runs, self.stop.click, plain(self.stop_said), self.visit, outputs, **said)
        opacity = controls[1]
        opacity.input(plain(self.reblend), [self.visit, opacity], outputs, **LATEST, **QUICK)

    def connect_upload(self, runs: list, received: list) -> list:
        """What brings pictures onto the page, which ends `runs`. Returns these events."""
        uploaded, taken = [self.visit, self.upload], [self.upload, *received]
        seen = {"show_progress_on": self.preview, **PRIVATE, **MODEL}
        # Each choice of an example counts: Gradio would give the "last" the number of the one before.
        taking = {"trigger_mode": "multiple", **seen}
        example = self.example_gallery.select
        reading = [
            first_ending(runs, self.upload.upload, plain(self.receive), uploaded, received, **seen),
            first_ending(runs, self.upload.delete, plain(self.receive), uploaded, received, **LATEST, **seen),
        ]
        chosen = first_ending([*reading, *runs], example, plain(self.receive_example), self.visit, taken, **taking)
        return [*reading, chosen]

    def tab_closed(self, request: gr.Request) -> None:
        """A closed tab's picture is kept no longer than an open one's; Gradio would keep it for an hour."""
        holder = request.request.app.state_holder
        if request.session_hash in holder:
            holder[request.session_hash].STATE_TTL_WHEN_CLOSED = KEPT_SECONDS

    def blank(self, task: str) -> Updates:
        """The right column before anything was found, for that task."""
        bundle = self.service.bundle(task)
        return {self.results: gr.Row(visible=False), **merged(panel.blank(bundle) for panel in self.panels)}

    def forget(self, visit: Visit | None) -> Updates:
        """End what runs for the old upload, and an empty page."""
        if visit:
            visit.end_all()
        return {
            self.visit: None,
            self.preview: None,
            self.task: self.first,
            self.suggestion: "",
            **self.blank(self.first),
        }

    def receive(self, visit: Visit | None, paths: list[str] | None) -> Iterator[Updates]:
        """Read an upload, show it and suggest its task. The old results go first, so that an error leaves none."""
        yield self.forget(visit)
        if not paths:
            raise ImageError(NO_FILE)
        yield self.received(Visit.of(paths))

    def receive_example(self, visit: Visit | None, event: gr.SelectData) -> Iterator[Updates]:
        """Take an example as if it had been uploaded; its own group is kept out of its cases."""
        yield {self.upload: None, **self.forget(visit)}
        example = self.examples[event.index]
        yield self.received(Visit(Picture.read(example["path"]), group=example["group"]))

    def received(self, visit: Visit) -> Updates:
        """A fresh visit on the page, with the task its image resembles most."""
        with self.service.encoded(visit.encodings, list(self.service.bundles.values())):
            best = suggest_task(self.service.bundles, visit.encodings)[0]
        visit.task = best.name
        task = self.service.bundle(best.name).task
        notes, number = ((), visit.number) if visit.many else (visit.picture.notes, None)
        return {
            self.visit: visit,
            self.preview: served_png(self.preview, for_screen(visit.image)),
            self.task: best.name,
            self.suggestion: render.suggestion(task, best, notes, number),
            **self.blank(best.name),
            **merged(panel.received(visit) for panel in self.panels),
        }

    def turn(self, visit: Visit | None, number: int) -> Updates:
        """Another picture of the same upload, from 1; where it cannot be read, the old one stays and that is said."""
        if visit is None and number != 1:  # a new upload sets it to 1
            raise ImageError(GONE)
        if visit is None or visit.many is None or visit.number == number - 1:
            return gr.skip()
        visit.end()
        try:
            fresh = visit.turned(number - 1)
        except ImageError as error:
            gr.Warning(render.toast(f"Number {number} cannot be read: {error} Number {visit.number + 1} stays."))
            return merged(panel.received(visit) for panel in self.panels if isinstance(panel, ChooserPanel))
        bundle = self.service.bundle(fresh.task)
        return {
            self.visit: fresh,
            self.preview: served_png(self.preview, for_screen(fresh.image)),
            self.results: gr.Row(visible=False),
            **merged(panel.turned(fresh) if panel.of_upload else panel.blank(bundle) for panel in self.panels),
        }

    def change_task(self, visit: Visit | None, task: str) -> Updates:
        """Another task was chosen: its figures, and no results of the old one."""
        if visit and visit.task == task:
            return self.stop_said(visit)
        if visit is None:
            return self.blank(task)
        visit.end_all()
        visit.forget()
        visit.task = task
        return {**self.blank(task), **merged(panel.received(visit) for panel in self.panels)}

    def stop_said(self, visit: Visit | None) -> Updates:
        """Stop what runs (closing its event alone would let it run on), and say so where its result is missing."""
        running = visit.halt_all() if visit else ()
        parts = (panel.stopped(name, visit) for name in running for panel in self.panels)
        return merged(parts) if running else gr.skip()

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
            if analysis.explanation and visit.analysis and visit.analysis.explanation:
                # Another class or method was chosen meanwhile, and is explained already.
                chosen = {name: getattr(visit.analysis, name) for name in ("explanation", "explained_by")}
                analysis = replace(analysis, **chosen)
            visit.analysis = analysis
            # All again, as a late answer to what was pressed before may have emptied a part; but what the visitor
            # changed meanwhile, a case that was opened or a corner that was clicked, stays.
            new = merged(panel.show(bundle, analysis, opacity) for panel in self.panels)
            shown = {**shown, **new}
            changed = {output for panel in self.panels for output in panel.changed_by(visit)} - set(new)
            yield {output: value for output, value in shown.items() if output not in changed}
        if visit.stop.is_set():
            yield gr.skip()  # Gradio shows at the end again what came last, where Stop has said what it stopped


def merged(parts: Iterator[Updates]) -> Updates:
    """What all panels change, as one."""
    return {output: value for part in parts for output, value in part.items()}
