"""The page of `medssl serve --annotate`: a picture, two clicks a box, and a fit in between. For this machine only."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from medssl.errors import ImageError
from medssl.metrics.metric import figure_text
from medssl.report.lesions import canvas_of, draw_box, draw_cross, lesion_picture
from medssl.web import render
from medssl.web.annotator import Annotator
from medssl.web.panels.panel import PRIVATE, Updates, plain
from medssl.web.panels.regions import box_between
from medssl.web.plain_answers import PlainBlocks
from medssl.web.served_files import served_png

KEYS = Path(__file__).with_name("annotate.js")
OTHER = "Another tab went on to another picture, which is shown now: nothing was saved."
EVENT = {**PRIVATE, "concurrency_id": "annotate", "concurrency_limit": 1}


def build_annotate_page(annotator: Annotator) -> gr.Blocks:
    """The page over the pictures of one folder."""
    with PlainBlocks(title="medssl: draw boxes", analytics_enabled=False) as demo:
        page = AnnotatePage(annotator)
        demo.load(plain(page.readable), None, page.outputs, **EVENT)
    return demo.queue(max_size=16, default_concurrency_limit=1, api_open=False)


def keyboard() -> str:
    """The script of the page's keys, for `launch(head=...)`."""
    return f"<script>{KEYS.read_text('utf-8')}</script>"


class AnnotatePage:
    """The components and what happens between them; all that is known is the annotator's, and on the disk."""

    def __init__(self, annotator: Annotator) -> None:
        self.annotator, self.map_shown = annotator, False
        gr.HTML(render.html("annotate_header", folder=annotator.folder.name), elem_id="annotate-header")
        self.status = gr.HTML("", elem_id="annotate-status")
        self.picture = gr.Image(
            show_label=False,
            alt_text="the picture to annotate",
            format="png",
            interactive=False,
            height=560,
            buttons=["fullscreen"],
            elem_id="annotate-picture",
        )
        with gr.Row(elem_id="annotate-buttons"):
            self.next = gr.Button("Next (N)", variant="primary", elem_id="annotate-next")
            self.none = gr.Button("No lesion (0)", elem_id="annotate-none")
            self.undo = gr.Button("Undo (U)", elem_id="annotate-undo")
            self.fit = gr.Button("Fit and show the map (F)", elem_id="annotate-fit")
        self.said = gr.HTML("", elem_id="annotate-said")
        self.seen = gr.State("")  # the name of the picture that this tab shows
        self.outputs = [self.picture, self.status, self.said, self.seen]
        self.connect()

    def connect(self) -> None:
        """Clicks and buttons."""
        shown = {"show_progress": "hidden", "trigger_mode": "multiple", **EVENT}  # each of two quick clicks counts
        self.picture.select(plain(self.click), self.seen, self.outputs, **shown)
        self.none.click(plain(self.no_lesion), self.seen, self.outputs, **shown)
        for button, step in ((self.next, self.go_on), (self.undo, self.take_back)):
            button.click(plain(step), None, self.outputs, **shown)
        self.fit.click(plain(self.fitted), None, self.outputs, show_progress_on=self.said, **EVENT)

    def show(self, said: str = "") -> Updates:
        """The picture with its boxes (under its map, where one was asked for), and where one is."""
        annotator = self.annotator
        image = annotator.picture()
        if self.map_shown and annotator.localizer is not None:
            canvas = lesion_picture(image, annotator.locate(annotator.shown), boxed=False)
        else:
            canvas = canvas_of(image)
        for box in annotator.boxes:
            draw_box(canvas, box)
        if annotator.corner is not None:
            draw_cross(canvas, annotator.corner)
        boxes = annotator.file.boxes
        status = render.html(
            "annotate_status",
            name=annotator.shown,
            label=annotator.label,
            count=len(annotator.boxes),
            none=annotator.shown in boxes and not annotator.boxes,
            done=len(boxes),
            left=len([name for name in annotator.queue if name not in boxes]),
        )
        note = said and render.note(said)
        picture = served_png(self.picture, canvas)
        return {self.picture: picture, self.status: status, self.said: note, self.seen: annotator.shown}

    def readable(self, said: str = "") -> Updates:
        """The picture, or the next one that can be read. Raises ImageError where none can."""
        for _ in range(max(1, len(self.annotator.queue))):
            try:
                return self.show(said)
            except ImageError as error:
                unreadable = error
                said = f"{self.annotator.shown} cannot be read and is left out. {said}"
                self.annotator.next()
        raise unreadable

    def click(self, seen: str, event: gr.SelectData) -> Updates:
        """The first click marks a corner; the second makes a box, which is saved."""
        annotator = self.annotator
        if seen != annotator.shown:
            return self.readable(OTHER)
        size = canvas_of(annotator.picture()).size
        place = tuple(min(1.0, max(0.0, at / side)) for at, side in zip(event.index, size, strict=True))
        if annotator.corner is None:
            annotator.corner = place
            return self.show("Now click on the opposite corner.")
        corner, annotator.corner = annotator.corner, None
        annotator.add(box_between(corner, place))
        return self.show(f"Saved in {annotator.file.path.name}.")

    def go_on(self) -> Updates:
        """The next picture."""
        self.annotator.next()
        return self.readable()

    def no_lesion(self, seen: str) -> Updates:
        """This picture has none."""
        if seen != self.annotator.shown:
            return self.readable(OTHER)
        self.annotator.say_none()
        return self.readable("Saved: no lesion in the picture before.")

    def take_back(self) -> Updates:
        """The last click, box or word never was."""
        self.map_shown = self.map_shown and self.annotator.localizer is not None
        return self.show("Taken back." if self.annotator.undo() else "There is nothing to take back.")

    def fitted(self) -> Updates:
        """Fit to all boxes so far, and show the next picture under its map."""
        localizer = self.annotator.fit()
        self.map_shown = True
        self.annotator.next()
        fitted = localizer.config.fitted_on
        rate = localizer.config.hit_rate
        return self.readable(
            f"Fitted to {fitted['pictures']} pictures; on {rate['n']} {localizer.config.measured_on} pictures the "
            f"maximum lay in the lesion at a rate of {figure_text(rate)}. A build over "
            "this folder fits it again, and keeps it."
        )
