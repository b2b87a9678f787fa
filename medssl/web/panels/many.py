"""The part of the page that answers for all pictures of an upload: a table of them, and one answer a series."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from medssl.bundle.bundle import Bundle
from medssl.bundle.many import PictureRow, by_need, write_table
from medssl.errors import ImageError
from medssl.images.pictures import Progress
from medssl.web import many_html, render
from medssl.web.many import scored
from medssl.web.panels.panel import LATEST, LONG, QUICK, Panel, Updates, Wiring, plain
from medssl.web.served_files import served_file
from medssl.web.session import Visit
from medssl.web.uploaded import Uploaded
from medssl.web.uploads import check_count
from medssl.web.wanted import Stopped

TABLE, TOGETHER = "table", "together"  # the names of runs
CSV_NAME = "medssl-table.csv"
NOT_MANY = "There are no several pictures to answer for. Give several files, a zip, or a file of several pictures."
# While a table grows it is shown anew this often at most, and only with a tenth more rows: a long one is a long page.
SHOWN_EVERY, GROWN_BY = 2.0, 1.1
OPENS = Path(__file__).parents[1].joinpath("many.js").read_text("utf-8")


class ManyPanel(Panel):
    """What was uploaded, two buttons, one answer, and the table; hidden where there is one picture."""

    name = "all"
    of_upload = True

    def __init__(self, bundle: Bundle) -> None:
        with gr.Column(visible=False, elem_id="all-box") as self.box:
            self.said = gr.HTML("", elem_id="all-said")
            with gr.Row(elem_id="all-buttons"):
                self.each = gr.Button("Table of all", size="sm", min_width=150, elem_id="all-each")
                self.together = gr.Button("One answer for all", size="sm", min_width=150, elem_id="all-together")
                self.csv = gr.DownloadButton("Table as CSV", visible=False, size="sm", min_width=120, elem_id="all-csv")
            self.group = gr.Textbox(
                "",
                label="Patient or slide",
                placeholder="Id of the one patient or slide they are of; its own known cases are then left out",
                show_label=False,
                container=False,
                max_lines=1,
                elem_id="all-group",
            )
            self.state = gr.HTML("", elem_id="all-state")
            self.answer = gr.HTML("", js_on_load=OPENS, elem_id="all-answer")
            self.table = gr.HTML("", js_on_load=OPENS, elem_id="all-table")
        self.found = [self.state, self.answer, self.table, self.csv]
        self.outputs = [self.box, self.said, self.each, self.together, self.group, *self.found]

    def blank(self, bundle: Bundle) -> Updates:
        """Nothing uploaded."""
        return {self.box: gr.Column(visible=False), self.said: "", self.group: "", **self.nothing()}

    def nothing(self) -> Updates:
        """Nothing found."""
        no_file = gr.DownloadButton(value=None, visible=False)
        return {self.state: "", self.answer: "", self.table: "", self.csv: no_file}

    def received(self, visit: Visit) -> Updates:
        """What was uploaded, where it is several pictures."""
        many = visit.many
        if many is None:
            return {}
        return {
            self.box: gr.Column(visible=True),
            self.said: many_html.uploaded(many),
            self.each: gr.Button(f"Table of all {len(many)} pictures"),
            self.together: gr.Button(many_html.together(many, "")),
        }

    def stopped(self, run: str, visit: Visit) -> Updates:
        """The rows so far, and where it goes on."""
        many = visit.many
        if many is None or run not in (TABLE, TOGETHER):
            return {}
        said = f"Stopped after {len(many.rows)} of {len(many)} pictures. Press the button again to go on from there."
        return {**self.rows(many), self.state: render.note(said)}

    def connect(self, wiring: Wiring) -> list:
        """Both buttons, and pictures opened from table and answer."""
        self.service = wiring.service
        asked = [wiring.visit, wiring.task, self.group]
        shown = {"outputs": self.found, "show_progress_on": self.state, **LONG}
        runs = [self.each.click(plain(self.table_of), asked, **shown)]
        runs.append(self.together.click(plain(self.answer_of), asked, **shown))
        named = [wiring.visit, self.group]
        self.group.change(plain(self.named), named, self.together, **LATEST, **QUICK)
        for listed in (self.answer, self.table):
            listed.select(plain(self.open), wiring.visit, wiring.number, **QUICK)
        return runs

    def named(self, visit: Visit | None, group: str) -> Updates:
        """What the button for one answer says, as all pictures of a named group get one; the visit takes the name."""
        if visit is None or visit.many is None:
            return {}
        visit.name_group(group.strip())
        return {self.together: gr.Button(many_html.together(visit.many, group))}

    def open(self, visit: Visit | None, event: gr.EventData) -> int:
        """The slider at the chosen picture, which opens it."""
        count = len(visit.many) if visit and visit.many else 0
        number = event.number
        if not isinstance(number, int) or not 0 <= number < count:
            raise ImageError("This row belongs to an upload that is gone. Upload the files again.")
        return number + 1

    def table_of(
        self,
        visit: Visit | None,
        task: str,
        group: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[Updates]:
        """The table of all pictures, as it grows."""
        yield from self.through(TABLE, visit, task, group, progress)

    def answer_of(
        self,
        visit: Visit | None,
        task: str,
        group: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[Updates]:
        """The table of all pictures, as it grows, and one answer for all, or for each series."""
        yield from self.through(TOGETHER, visit, task, group, progress)

    def through(self, run: str, visit: Visit | None, task: str, group: str, progress: gr.Progress) -> Iterator[Updates]:
        """The table of all pictures, as it grows, and at the end of the run TOGETHER what is answered for them."""
        many, bundle = self.several(visit), self.service.bundle(task)
        visit.name_group(group.strip())
        rows, answer = many.begin(task, group.strip()), {}
        try:
            with many.run(run, progress) as tell:
                yield from self.growing(many, bundle, rows, tell)
                if run == TOGETHER:
                    with self.service.turn(slow=True):
                        analysis = bundle.answer_group(many.group, rows, many.pictures.notes)
                    answer = {self.answer: many_html.answers(bundle, analysis)}
        except Stopped:
            yield self.ended(visit, rows)
            return
        yield {**self.rows(many), **answer}

    def several(self, visit: Visit | None) -> Uploaded:
        """All pictures of a visit's upload. Raises ImageError where there are not several, or too many."""
        if visit is None or visit.many is None:
            raise ImageError(NOT_MANY)
        check_count(visit.many.pictures)
        return visit.many

    def growing(self, many: Uploaded, bundle: Bundle, rows: list[PictureRow], tell: Progress) -> Iterator[Updates]:
        """Add the missing rows, and show those found so far, first and now and then. Raises Stopped."""
        yield self.growing_table(many)
        shown, since = len(rows), time.monotonic()
        for batch in scored(self.service, bundle, many.pictures, tell, many.group or None, len(rows)):
            rows += batch
            if GROWN_BY * shown <= len(rows) < len(many) and time.monotonic() - since >= SHOWN_EVERY:
                tell(len(rows) / len(many), f"Picture {len(rows)} of {len(many)}")
                shown, since = len(rows), time.monotonic()
                yield self.growing_table(many)

    def ended(self, visit: Visit, rows: list[PictureRow]) -> Updates:
        """What a stopped run shows last, and Gradio again once it is over: what Stop says, where that ended it."""
        return self.stopped(TABLE, visit) if visit.many.halted is rows else gr.skip()

    def growing_table(self, many: Uploaded) -> Updates:
        """The rows found so far, what needs a look first, and room for progress; answer and file are of all rows."""
        table = many_html.table(by_need(many.rows)) if many.rows else ""
        return {**self.nothing(), self.state: many_html.GROWING, self.table: table}

    def rows(self, many: Uploaded) -> Updates:
        """The rows found so far as table and file, what needs a look first; no answer, which may be of other rows."""
        if not many.rows:
            return self.nothing()
        rows = by_need(many.rows)
        text = io.StringIO(newline="")
        write_table([row.to_dict() for row in rows], text)
        path = served_file(self.csv, text.getvalue().encode(), CSV_NAME)
        return {
            **self.nothing(),
            self.state: many_html.counted(rows, len(many)),
            self.table: many_html.table(rows),
            self.csv: gr.DownloadButton(value=path, visible=True),
        }
