"""The part of the page that makes a report of what was found, to be kept."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.errors import ImageError
from medssl.report import Report, ReportOptions, can_capture, compose_report, secondary_capture
from medssl.web import render
from medssl.web.panels.panel import SLOW, Panel, Updates, Wiring, plain
from medssl.web.served_files import served_file
from medssl.web.session import Visit
from medssl.web.wanted import Stopped

REPORT = "report"  # the run's name
NOTHING_YET = "There is nothing to report yet. Press Analyze first."


def report_files(report: Report, dicom: bool) -> dict[str, bytes]:
    """A report's files by their names: HTML, JSON, and for a DICOM upload the overlay as a DICOM file."""
    files = {"medssl-report.html": report.html.encode(), "medssl-report.json": report.json.encode()}
    if dicom and report.overlay is not None and can_capture():
        files["medssl-overlay.dcm"] = secondary_capture(report.overlay)
    return files


class ReportPanel(Panel):
    """One button, and the files that it made."""

    name = "keep"

    def __init__(self, bundle: Bundle) -> None:
        self.button = gr.Button("Make a report to keep", visible=False, size="sm", elem_id="report")
        self.said = gr.HTML("", elem_id="report-said")
        self.files = gr.Files(
            label="The report: HTML to read or print, JSON for programs",
            interactive=False,
            visible=False,
            elem_id="report-files",
        )
        self.made = [self.said, self.files]
        self.outputs = [self.button, *self.made]

    def blank(self, bundle: Bundle) -> Updates:
        """Nothing to report."""
        return {self.button: gr.Button(visible=False), **self.no_report()}

    def no_report(self) -> Updates:
        """No report made."""
        return {self.said: "", self.files: gr.Files(value=None, visible=False)}

    def show(self, bundle: Bundle, analysis: Analysis, opacity: float) -> Updates:
        """The button, once there are cases."""
        return {self.button: gr.Button(visible=analysis.cases is not None), **self.no_report()}

    def stopped(self, run: str, visit: Visit) -> Updates:
        """What stands where the report would have appeared."""
        return {self.said: render.note("Stopped. Press the button to make the report again.")} if run == REPORT else {}

    def connect(self, wiring: Wiring) -> list:
        """The button."""
        self.service = wiring.service
        making = self.button.click(plain(self.make), wiring.asked, self.made, show_progress_on=self.said, **SLOW)
        return [making]

    def make(
        self,
        visit: Visit | None,
        task: str,
        target: str,
        opacity: float,  # noqa: ARG002
        method: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        """The report of the image at hand, for the class and explainer that are chosen."""
        if visit is None or visit.analysis is None:
            raise ImageError(NOTHING_YET)
        options = ReportOptions(target=target or None, method=method)
        try:
            with visit.run(REPORT, progress) as tell, self.service.turn(slow=True):
                report = compose_report(visit.analyzer(task, self.service.bundle(task)), options, tell)
        except Stopped:
            return gr.skip()
        files = report_files(report, visit.picture.dicom)
        paths = [served_file(self.files, data, name) for name, data in files.items()]
        names = ", ".join(Path(path).name for path in paths)
        return {self.said: render.note(f"Made: {names}."), self.files: gr.Files(value=paths, visible=True)}
