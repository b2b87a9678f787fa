"""The HTTP endpoints for many pictures: a folder's rows, and one answer for a patient or slide, or for each series."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gradio as gr

from medssl.bundle.bundle import Bundle
from medssl.bundle.group import GroupAnalysis
from medssl.bundle.many import PictureRow
from medssl.errors import ImageError
from medssl.images.safe_reader import SafePictures
from medssl.report import compose_many_report
from medssl.web.api import NO_FILE, Files, as_progress, check_flag
from medssl.web.many import scored, suggested
from medssl.web.panels.report import report_files
from medssl.web.plain_errors import guarded
from medssl.web.service import MANY, Service
from medssl.web.uploads import read_uploads


class ManyApi:
    """The public endpoints that take several files or a zip; made inside the Blocks being built."""

    def __init__(self, service: Service) -> None:
        self.service = service
        with gr.Row(visible=False, elem_id="api-many-row"):
            images = gr.File(label="image files, or zips of them", file_count="multiple", elem_id="api-images")
            task = gr.Textbox("", label="task name, see `tasks`; empty: the suggested one", elem_id="api-many-task")
            group = gr.Textbox("", label="id of the patient, slide or series", elem_id="api-group")
            together = gr.Checkbox(False, label="whether they are of one group", elem_id="api-together")
            self.out = gr.JSON(label="result", elem_id="api-many-out")
        self.files = Files(self.out)
        self.connect(self.analyze_many, [images, task])
        self.connect(self.analyze_group, [images, group, task])
        self.connect(self.report_many, [images, together, group, task])

    def connect(self, endpoint: Callable, inputs: list) -> None:
        """Make a method an endpoint of its own name, which waits for others of many pictures."""
        name = endpoint.__name__
        gr.on([], guarded(endpoint), inputs, self.out, api_name=name, api_visibility="public", **MANY)

    def answered(
        self, images: object, task: str, group_id: str, progress: gr.Progress
    ) -> tuple[str, Bundle, SafePictures, list[PictureRow]]:
        """Task, bundle, pictures and their rows. Raises MedSSLError."""
        if not isinstance(images, Sequence) or isinstance(images, str) or not images:
            raise ImageError(NO_FILE)
        if task:
            self.service.bundle(task)
        pictures = read_uploads(images)
        task = task or suggested(self.service, pictures)
        bundle = self.service.bundle(task)
        scores = scored(self.service, bundle, pictures, as_progress(progress), group_id or None)
        rows = [row for batch in scores for row in batch]
        return task, bundle, pictures, rows

    def analyze_many(
        self,
        images: list[str],
        task: str = "",
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Classify many pictures in one call: every image, frame, page and slice of the files, and of zips of files.

        Args:
            images: the image files, or zips of them; at most 2,000 pictures together
            task: task name; empty takes the one that the first picture resembles most, of a series the middle one
        Returns:
            task, rows (one a picture, in order: file, frame, frames, series, label, probability, prediction_set,
            familiarity, familiar, case_id, case_label, case_score, case_group, error), notes
        """
        task, _, pictures, rows = self.answered(images, task, "", progress)
        return rows_told(task, rows, pictures)

    def analyze_group(
        self,
        images: list[str],
        group_id: str = "",
        task: str = "",
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """One answer for all pictures of files, and of zips of files; for several series, without group_id, one each.

        Args:
            images: the image files, or zips of them; at most 2,000 pictures together
            group_id: id of the patient or slide that all are of, whose own cases are then left out
            task: task name; empty takes the one that the first picture resembles most, of a series the middle one
        Returns:
            task, group_id, prediction (of all, with the group's own prediction set), images, unreadable, unfamiliar
            (counts), rule (how an answer is made), rows (as `analyze_many` gives them), deciding (the pictures
            without which the class would be least probable, with their effect), similar_groups, notes, and answers:
            one, or without group_id one for each series, pictures without a series together (series, prediction,
            images, unreadable, unfamiliar, deciding, similar_groups); where there are several, the fields beside
            them of one answer are empty (prediction: null)
        """
        task, bundle, pictures, rows = self.answered(images, task, group_id, progress)
        return group_told(task, bundle.answer_group(group_id, rows, pictures.notes))

    def report_many(
        self,
        images: list[str],
        together: bool = False,
        group_id: str = "",
        task: str = "",
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Make a report of many pictures to keep: one HTML file that prints to A4 and needs nothing else, and its JSON.

        Args:
            images: the image files, or zips of them; at most 2,000 pictures together
            together: whether the answers of `analyze_group` stand first
            group_id: id of the patient or slide that all are of, whose own cases are then left out; not in the report
            task: task name; empty takes the one that the first picture resembles most
        Returns:
            task, html (file), json (file); pictures are numbered in the order of the files and never named there;
            answer (what `analyze_group`, where together, or else `analyze_many` gives of the same pictures)
        """
        check_flag("together", together)
        task, bundle, pictures, rows = self.answered(images, task, group_id, progress)
        group = bundle.answer_group(group_id, rows, pictures.notes) if together else None
        with self.service.turn(slow=True):
            report = compose_many_report(bundle, rows, pictures, group, as_progress(progress))
        html, values = (self.files.file(data, name) for name, data in report_files(report, False).items())
        answer = group_told(task, group) if group else rows_told(task, rows, pictures)
        return {"task": task, "html": html, "json": values, "answer": answer}


def rows_told(task: str, rows: Sequence[PictureRow], pictures: SafePictures) -> dict:
    """What `analyze_many` gives."""
    return {"task": task, "rows": [row.to_dict() for row in rows], "notes": list(pictures.notes)}


def group_told(task: str, group: GroupAnalysis) -> dict:
    """What `analyze_group` gives; `task` is the name that the bundle is served under."""
    return {**group.to_dict(), "task": task}
