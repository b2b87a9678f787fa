"""The HTTP endpoints of the app, one method each: tasks, classify, explain, lesion_map, ... Plain JSON in and out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

import gradio as gr
import numpy as np
from PIL import Image

from medssl.audit.findings import without_file_names
from medssl.bundle.analyzer import Analyzer, PictureEncodings, case_dict
from medssl.bundle.bundle import Bundle, suggest_task
from medssl.errors import ImageError, LibraryError, MedSSLError
from medssl.explain import Explanation, ViTCX
from medssl.explain.choice import AUTO
from medssl.heads.lesion_map import LesionMap
from medssl.library.library import Case
from medssl.library.regions import Box, RegionMatch
from medssl.report import ReportOptions, compose_report
from medssl.report.lesions import lesion_picture, outlined
from medssl.report.provenance import backbone_name
from medssl.report.report import CASES
from medssl.web.panels.report import report_files
from medssl.web.plain_errors import guarded
from medssl.web.served_files import served_file, served_png
from medssl.web.service import HEAVY, MODEL, Service
from medssl.web.turns import give_way
from medssl.web.uploads import is_dicom_file, read_upload
from medssl.web.wanted import check_wanted

NO_FILE = "No image was given. Choose a PNG, JPEG, TIFF, WebP, BMP, DICOM or NIfTI file first."
MOST_CASES = 50
MOST_REPORTED = 12  # each is explained on two pictures


def check_top_k(value: object, most: int = MOST_CASES) -> int:
    """A number of cases as an int. Raises LibraryError outside 1 to `most`."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not 1 <= number <= most or int(number) != number:
        raise LibraryError(f"top_k is {value!r}; allowed are whole numbers from 1 to {most}.")
    return int(number)


def check_frame(value: object) -> int | None:
    """The number of a picture in its file as an int, None for the one that is meant. Raises ImageError."""
    if value is None:
        return None
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not number >= 0 or int(number) != number:
        raise ImageError(f"frame is {value!r}; allowed is a whole number from 0 on, or null.")
    return int(number)


def check_flag(name: str, value: object) -> None:
    """Raises MedSSLError for anything but true and false."""
    if not isinstance(value, bool):
        raise MedSSLError(f"{name} is {value!r}; allowed are true and false.")


def read_box(text: object) -> Box | None:
    """The box that a text of four numbers means, None for an empty one. Raises LibraryError for anything else."""
    if text in ("", None):
        return None
    try:
        left, top, right, bottom = (float(part) for part in str(text).split(","))
    except ValueError as error:
        raise LibraryError(
            f"box is {text!r}; allowed: left,top,right,bottom as fractions of width and height, such as 0.1,0.2,0.4,0.5"
        ) from error
    return left, top, right, bottom


def describe(name: str, bundle: Bundle) -> dict:
    """One entry of the endpoint `tasks`."""
    return {
        "name": name,
        "title": bundle.task.title,
        "labels": list(bundle.labels),
        "modality": bundle.task.modality,
        "backbone": {**bundle.head.backbone, "id": backbone_name(bundle)},
        "explainers": bundle.explainers,
        "first_explainer": bundle.explainer_choice.method,
        "regions": bundle.regions is not None,
        "localizer": bundle.localizer and {"labels": bundle.localizer.config.labels},
        "figures": without_file_names(bundle.metrics),
    }


def gray_16(heatmap: np.ndarray) -> Image.Image:
    """A raw map as a 16-bit grey picture: 0..65535 is 0..1."""
    return Image.fromarray(np.round(heatmap * 65535).astype(np.uint16))


class Files:
    """Pictures handed out by an endpoint, kept in the output component's own cache so that they expire with it."""

    def __init__(self, component: gr.components.Component) -> None:
        self.component = component

    def png(self, image: Image.Image, name: str) -> dict:
        """An image as a file that a client downloads."""
        path = served_png(self.component, image, name)
        return gr.FileData(path=path, orig_name=name, mime_type="image/png").model_dump()

    def file(self, data: bytes, name: str) -> dict:
        """Bytes as a file that a client downloads."""
        path = served_file(self.component, data, name)
        return gr.FileData(path=path, orig_name=name).model_dump()

    def explanation(self, explanation: Explanation, image: Image.Image) -> dict:
        """The explanation's facts, its raw map and its overlay."""
        return {
            **explanation.to_dict(),
            "heatmap": self.png(gray_16(explanation.heatmap), "heatmap.png"),
            "overlay": self.png(explanation.overlay(image), "overlay.png"),
        }

    def lesion_map(self, found: LesionMap, image: Image.Image) -> dict:
        """The lesion map's facts, its raw map and its overlay."""
        return {
            **found.to_dict(),
            "said": found.said(),
            "heatmap": self.png(gray_16(found.heatmap), "lesion-map.png"),
            "overlay": self.png(lesion_picture(image, found), "lesion-overlay.png"),
        }

    def case(self, case: Case) -> dict:
        """A case's facts and thumbnail."""
        return {**case_dict(case), "thumbnail": None if case.image is None else self.png(case.image, "thumbnail.png")}

    def region(self, match: RegionMatch) -> dict:
        """A case with its region."""
        picture = match.case.image
        shown = None if picture is None else self.png(outlined(picture, match.box), "region.png")
        return {**self.case(match.case), "box": list(match.box), "outlined": shown}


class Api:
    """The public endpoints over the loaded bundles, one method each; made inside the Blocks being built.

    Their inputs are components of their own, which are never shown.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        with gr.Row(visible=False, elem_id="api-row"):
            image = gr.File(label="image file: PNG, JPEG, TIFF, WebP, BMP, DICOM or NIfTI", elem_id="api-image")
            frame = gr.Number(None, label="number of the picture in its file, from 0", elem_id="api-frame")
            task = gr.Textbox("", label="task name, see `tasks`; empty: the suggested one", elem_id="api-task")
            target = gr.Textbox("", label="class to explain; empty: the predicted one", elem_id="api-target")
            top_k = gr.Number(6, label=f"number of similar cases, 1 to {MOST_CASES}", elem_id="api-top-k")
            explain = gr.Checkbox(True, label="whether to compute the heatmap", elem_id="api-explain")
            method = gr.Textbox(AUTO, label="explainer, as `tasks` lists them, or auto", elem_id="api-method")
            compare = gr.Textbox(ViTCX.method, label="explainer, as `tasks` lists them", elem_id="api-compare")
            verify = gr.Checkbox(False, label="whether to verify the heatmap", elem_id="api-verify")
            reported = gr.Number(
                CASES, label=f"number of cases in the report, 1 to {MOST_REPORTED}", elem_id="api-reported"
            )
            case = gr.Textbox("", label="id of a case, as `similar` lists them", elem_id="api-case")
            lesion = gr.Textbox("", label="class of lesion to look for; empty: any", elem_id="api-lesion")
            box = gr.Textbox("", label="left,top,right,bottom as fractions; empty: the lesion's", elem_id="api-box")
            self.out = gr.JSON(label="result", elem_id="api-out")
        self.files = Files(self.out)
        self.connect(self.tasks, [])
        self.connect(self.classify, [image, task, frame])
        self.connect(self.explain, [image, task, target, method, verify, frame])
        self.connect(self.explain_case, [image, case, task, compare, frame])
        self.connect(self.lesion_map, [image, task, lesion, frame])
        self.connect(self.similar_regions, [image, box, task, top_k, frame])
        self.connect(self.similar, [image, task, top_k, frame])
        self.connect(self.analyze, [image, task, target, top_k, explain, method, verify, frame])
        self.connect(self.report, [image, task, target, reported, method, frame])

    def connect(self, endpoint: Callable, inputs: list) -> None:
        """Make a method an endpoint of its own name; what takes an image waits in line, heatmaps in their own."""
        quick = endpoint in (self.classify, self.similar)
        limits = {} if not inputs else MODEL if quick else HEAVY
        gr.on([], guarded(endpoint), inputs, self.out, api_name=endpoint.__name__, api_visibility="public", **limits)

    @contextmanager
    def opened(
        self, image: str | None, task: str, frame: float | None = None, slow: bool = False
    ) -> Iterator[tuple[Analyzer, dict]]:
        """A context with an uploaded image opened for a task, and what the answer says of task and frame.

        The file is read first, as one that takes its time should hold up nobody; then the image is encoded, with others
        that wait, and the model is this call's alone; what is `slow` then waits for a turn of its own. Raises
        MedSSLError.
        """
        if not isinstance(image, str) or not image:
            raise ImageError(NO_FILE)
        bundles, suggest = self.service.bundles, not task
        asked = list(bundles.values()) if suggest and bundles else [self.service.bundle(task)]
        encodings = PictureEncodings(read_upload(image, check_frame(frame)))
        picture = encodings.picture
        with ExitStack() as turns:
            turns.enter_context(self.service.encoded(encodings, asked))
            facts: dict = {"task": task, "frame": picture.frame, "frames": picture.frames}
            if suggest:
                suggestions = suggest_task(bundles, encodings)
                facts["task"] = suggestions[0].name
                facts["suggested"] = [asdict(suggestion) for suggestion in suggestions]
            analyzer = Analyzer.open(bundles[facts["task"]], encodings)
            if slow:
                turns.close()
                turns.enter_context(self.service.turn(slow=True))
            yield analyzer, facts

    def tasks(self) -> list[dict]:
        """List the loaded tasks: name, title, labels, modality, backbone, explainers and measured figures.

        Returns:
            a list of objects with name, title, labels, modality, backbone, explainers (name: title), first_explainer
            (what auto means; null where none beats random maps), localizer (the classes whose lesions it knows; null
            where there is none), regions (whether they can be searched), figures
        """
        return [describe(name, bundle) for name, bundle in self.service.bundles.items()]

    def classify(self, image: str, task: str = "", frame: float | None = None) -> dict:
        """Classify an image: label, probabilities, 90 % prediction set and familiarity. Research only, no diagnosis.

        Args:
            image: the image file
            task: task name; empty takes the task whose cases the image resembles most, and lists all under "suggested"
            frame: number of the picture in its file (from 0); null takes the first, of a volume the middle slice
        Returns:
            task, frame, frames, label, probability, probabilities, prediction_set, familiarity, familiar
        """
        with self.opened(image, task, frame) as (opened, facts):
            return {**facts, **asdict(opened.prediction)}

    def explain(
        self,
        image: str,
        task: str = "",
        target: str = "",
        method: str = AUTO,
        verify: bool = False,
        frame: float | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Explain one class of an image: the raw heatmap (16-bit PNG) and its overlay, in the image's frame.

        Args:
            image: the image file
            task: task name; empty takes the suggested one
            target: class to explain; empty takes the predicted one
            method: explainer, as `tasks` lists them; auto: the one that beat random maps when the bundle was built
            verify: whether to delete and insert the heatmap's pixels, beside random maps
            frame: number of the picture in its file (from 0); null takes the first, of a volume the middle slice
        Returns:
            task, method, explained_by (one line: why this explainer), target, probability, evidence, masks,
            forward_passes, seconds, seed, heatmap (file), overlay (file), verification (null without `verify`)
        """
        check_flag("verify", verify)
        with self.opened(image, task, frame, slow=True) as (opened, facts):
            tell = as_progress(progress)
            share = 0.5 if verify else 1.0
            explanation = opened.explanation(target or None, method, lambda done, text: tell(share * done, text))
            shown = self.files.explanation(explanation, opened.picture.image)
            verification = None
            if verify:
                found = opened.verification(explanation, lambda done, text: tell(0.5 + 0.5 * done, text))
                verification = found.to_dict()
            said = opened.bundle.explainer_choice.line(method)
            return {**facts, **shown, "explained_by": said, "verification": verification}

    def lesion_map(self, image: str, task: str = "", target: str = "", frame: float | None = None) -> dict:
        """Where a lesion is seen: the raw map of probabilities (16-bit PNG, in the image's frame) and its overlay.

        Another question than `explain`, which shows what moved the answer. Only for tasks whose bundle has a localizer
        ("localizer" in `tasks`).

        Args:
            image: the image file
            task: task name; empty takes the suggested one
            target: class whose lesions to look for, as `tasks` lists them; empty takes any
            frame: number of the picture in its file (from 0); null takes the first, of a volume the middle slice
        Returns:
            task, target, probability (of the most probable patch), point (x, y) and box (left, top, right, bottom) of
            the maximum in fractions, hit_rate (measured, with interval), measured_on, said, seconds, heatmap (file),
            overlay (file, at screen size)
        """
        with self.opened(image, task, frame, slow=True) as (opened, facts):
            return {**facts, **self.files.lesion_map(opened.lesion_map(target), opened.picture.image)}

    def similar(self, image: str, task: str = "", top_k: int = 6, frame: float | None = None) -> dict:
        """Find the library cases most like an image, best first; the image itself is never among them.

        Args:
            image: the image file
            task: task name; empty takes the suggested one
            top_k: how many cases, 1 to 50
            frame: number of the picture in its file (from 0); null takes the first, of a volume the middle slice
        Returns:
            task, cases: a list of id, label, score (cosine), group_id, source, thumbnail (file)
        """
        count = check_top_k(top_k)
        with self.opened(image, task, frame) as (opened, facts):
            return {**facts, "cases": [self.files.case(case) for case in opened.cases(count)]}

    def similar_regions(
        self, image: str, box: str = "", task: str = "", top_k: int = 6, frame: float | None = None
    ) -> dict:
        """Find the cases that have a region most like one of the image, best first, each with that region outlined.

        Only for tasks whose bundle was built with its cases' regions ("regions" in `tasks`).

        Args:
            image: the image file
            box: left,top,right,bottom in fractions of width and height; empty takes the box of the lesion map
            task: task name; empty takes the suggested one
            top_k: how many cases, 1 to 50
            frame: number of the picture in its file (from 0); null takes the first, of a volume the middle slice
        Returns:
            task, box, cases: a list of id, label, score (mean over the region's patches of the highest cosine),
            group_id, source, thumbnail (file), box (in fractions), outlined (file)
        """
        count, asked = check_top_k(top_k), read_box(box)
        with self.opened(image, task, frame, slow=True) as (opened, facts):
            asked = asked or opened.lesion_map().box
            found = [self.files.region(match) for match in opened.regions(asked, count)]
            return {**facts, "box": list(asked), "cases": found}

    def explain_case(
        self,
        image: str,
        case_id: str,
        task: str = "",
        method: str = ViTCX.method,
        frame: float | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Explain why a library case is like an image: a heatmap on the image, and one on the case's thumbnail.

        Args:
            image: the image file
            case_id: id of the case, as `similar` lists them
            task: task name; empty takes the suggested one
            method: explainer, as `tasks` lists them
            frame: number of the picture in its file (from 0); null takes the first, of a volume the middle slice
        Returns:
            task, case, explanation, mirrored (null for a case without a picture)
        """
        with self.opened(image, task, frame, slow=True) as (opened, facts):
            likeness = opened.likeness(str(case_id), method, as_progress(progress))
            mirrored = likeness.mirrored and self.files.explanation(likeness.mirrored, likeness.case.image)
            shown = self.files.explanation(likeness.explanation, opened.picture.image)
            return {**facts, "case": self.files.case(likeness.case), "explanation": shown, "mirrored": mirrored}

    def analyze(
        self,
        image: str,
        task: str = "",
        target: str = "",
        top_k: int = 6,
        explain: bool = True,
        method: str = AUTO,
        verify: bool = False,
        frame: float | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Classify, explain and find similar cases in one call, by one encoding of the image.

        Args:
            image: the image file
            task: task name; empty takes the suggested one
            target: class to explain; empty takes the predicted one
            top_k: how many cases, 1 to 50
            explain: whether to compute the heatmap
            method: explainer, as `tasks` lists them; auto: the one that beat random maps when the bundle was built
            verify: whether to delete and insert the heatmap's pixels, beside random maps
            frame: number of the picture in its file (from 0); null takes the first, of a volume the middle slice
        Returns:
            task, prediction, cases, explanation (null without `explain`, and with method auto where no explainer beats
            random maps), explained_by (one line: which explainer and why), verification (null without `explain` and
            `verify`), seconds, notes; with `explain`, lesion_map where the task's bundle has a localizer
        """
        count = check_top_k(top_k)
        check_flag("explain", explain)
        check_flag("verify", verify)
        with self.opened(image, task, frame, slow=explain) as (opened, facts):
            *_, analysis = opened.steps(target or None, count, explain, method, verify, as_progress(progress))
            found = analysis.lesion_map
            return {
                **analysis.to_dict(),
                **facts,
                **({"lesion_map": self.files.lesion_map(found, analysis.image)} if found else {}),
                "cases": [self.files.case(case) for case in analysis.cases],
                "explanation": analysis.explanation and self.files.explanation(analysis.explanation, analysis.image),
            }

    def report(
        self,
        image: str,
        task: str = "",
        target: str = "",
        top_k: int = CASES,
        method: str = AUTO,
        frame: float | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Make a report of an image to keep: one HTML file that prints to A4 and needs nothing else, and its JSON.

        Args:
            image: the image file
            task: task name; empty takes the suggested one
            target: class to explain; empty takes the predicted one
            top_k: how many cases, 1 to 12; each is explained on both pictures
            method: explainer, as `tasks` lists them; auto: the one that beat random maps when the bundle was built
            frame: number of the picture in its file (from 0); null takes the first, of a volume the middle slice
        Returns:
            task, html (file), json (file), dicom (file: the overlay as a Secondary Capture with new UIDs and no
            patient, where the image was DICOM and highdicom is installed; else null)
        """
        options = ReportOptions(target or None, method, check_top_k(top_k, MOST_REPORTED))
        with self.opened(image, task, frame, slow=True) as (opened, facts):
            report = compose_report(opened, options, as_progress(progress))
        html, values, *dicom = (
            self.files.file(data, name) for name, data in report_files(report, is_dicom_file(image)).items()
        )
        return {**facts, "html": html, "json": values, "dicom": dicom[0] if dicom else None}


def as_progress(progress: gr.Progress) -> Callable[[float, str], None]:
    """Gradio's progress as the (fraction, text) callback of an Analyzer, which ends a call that nobody waits for."""

    def tell(fraction: float, text: str) -> None:
        check_wanted()
        give_way()
        progress(fraction, desc=text)

    return tell
