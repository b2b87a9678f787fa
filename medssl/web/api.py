"""The HTTP endpoints of the app: tasks, classify, explain, explain_case, similar, analyze. Plain JSON in and out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from medssl.library.library import Case
from medssl.web.plain_errors import guarded
from medssl.web.served_files import served_png
from medssl.web.service import MODEL, Service, backbone_name
from medssl.web.uploads import read_upload
from medssl.web.wanted import check_wanted

NO_FILE = "No image was given. Choose a PNG, JPEG, TIFF, WebP, BMP or DICOM file first."
MOST_CASES = 50


def check_top_k(value: object) -> int:
    """A number of cases as an int. Raises LibraryError outside 1 to 50."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not 1 <= number <= MOST_CASES or int(number) != number:
        raise LibraryError(f"top_k is {value!r}; allowed are whole numbers from 1 to {MOST_CASES}.")
    return int(number)


def check_flag(name: str, value: object) -> None:
    """Raises MedSSLError for anything but true and false."""
    if not isinstance(value, bool):
        raise MedSSLError(f"{name} is {value!r}; allowed are true and false.")


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
        "figures": without_file_names(bundle.metrics),
    }


def heatmap_png(explanation: Explanation) -> Image.Image:
    """The raw map as a 16-bit grey picture: 0..65535 is 0..1."""
    return Image.fromarray(np.round(explanation.heatmap * 65535).astype(np.uint16))


class Files:
    """Pictures handed out by an endpoint, kept in the output component's own cache so that they expire with it."""

    def __init__(self, component: gr.components.Component) -> None:
        self.component = component

    def png(self, image: Image.Image, name: str) -> dict:
        """An image as a file that a client downloads."""
        path = served_png(self.component, image, name)
        return gr.FileData(path=path, orig_name=name, mime_type="image/png").model_dump()

    def explanation(self, explanation: Explanation, image: Image.Image) -> dict:
        """The explanation's facts, its raw map and its overlay."""
        return {
            **explanation.to_dict(),
            "heatmap": self.png(heatmap_png(explanation), "heatmap.png"),
            "overlay": self.png(explanation.overlay(image), "overlay.png"),
        }

    def case(self, case: Case) -> dict:
        """A case's facts and thumbnail."""
        return {**case_dict(case), "thumbnail": None if case.image is None else self.png(case.image, "thumbnail.png")}


class Api:
    """The public endpoints over the loaded bundles, one method each; made inside the Blocks being built.

    Their inputs are components of their own, which are never shown.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        with gr.Row(visible=False, elem_id="api-row"):
            image = gr.File(label="image file: PNG, JPEG, TIFF, WebP, BMP or DICOM", elem_id="api-image")
            task = gr.Textbox("", label="task name, see `tasks`; empty: the suggested one", elem_id="api-task")
            target = gr.Textbox("", label="class to explain; empty: the predicted one", elem_id="api-target")
            top_k = gr.Number(6, label=f"number of similar cases, 1 to {MOST_CASES}", elem_id="api-top-k")
            explain = gr.Checkbox(True, label="whether to compute the heatmap", elem_id="api-explain")
            method = gr.Textbox(AUTO, label="explainer, as `tasks` lists them, or auto", elem_id="api-method")
            compare = gr.Textbox(ViTCX.method, label="explainer, as `tasks` lists them", elem_id="api-compare")
            verify = gr.Checkbox(False, label="whether to verify the heatmap", elem_id="api-verify")
            case = gr.Textbox("", label="id of a case, as `similar` lists them", elem_id="api-case")
            self.out = gr.JSON(label="result", elem_id="api-out")
        self.files = Files(self.out)
        self.connect(self.tasks, [])
        self.connect(self.classify, [image, task])
        self.connect(self.explain, [image, task, target, method, verify])
        self.connect(self.explain_case, [image, case, task, compare])
        self.connect(self.similar, [image, task, top_k])
        self.connect(self.analyze, [image, task, target, top_k, explain, method, verify])

    def connect(self, endpoint: Callable, inputs: list) -> None:
        """Make a method an endpoint of its own name; what takes an image waits for the model."""
        limits = MODEL if inputs else {}
        gr.on([], guarded(endpoint), inputs, self.out, api_name=endpoint.__name__, api_visibility="public", **limits)

    @contextmanager
    def opened(self, image: str | None, task: str) -> Iterator[tuple[Analyzer, dict]]:
        """A context with an uploaded image opened for a task, and what the answer says of the task.

        The file is read first, as one that takes its time should hold up nobody; then the model is this call's alone.
        Raises MedSSLError.
        """
        if not isinstance(image, str) or not image:
            raise ImageError(NO_FILE)
        bundles, suggest = self.service.bundles, not task
        if not (suggest and bundles):
            self.service.bundle(task)
        encodings = PictureEncodings(read_upload(image))
        with self.service.turn():
            facts: dict = {"task": task}
            if suggest:
                suggestions = suggest_task(bundles, encodings)
                facts["task"] = suggestions[0].name
                facts["suggested"] = [asdict(suggestion) for suggestion in suggestions]
            yield Analyzer.open(bundles[facts["task"]], encodings), facts

    def tasks(self) -> list[dict]:
        """List the loaded tasks: name, title, labels, modality, backbone, explainers and measured figures.

        Returns:
            a list of objects with name, title, labels, modality, backbone, explainers (name: title), first_explainer
            (what auto means; null where none beats random maps), figures
        """
        return [describe(name, bundle) for name, bundle in self.service.bundles.items()]

    def classify(self, image: str, task: str = "") -> dict:
        """Classify an image: label, probabilities, 90 % prediction set and familiarity. Research only, no diagnosis.

        Args:
            image: the image file
            task: task name; empty takes the task whose cases the image resembles most, and lists all under "suggested"
        Returns:
            task, label, probability, probabilities, prediction_set, familiarity, familiar
        """
        with self.opened(image, task) as (opened, facts):
            return {**facts, **asdict(opened.prediction)}

    def explain(
        self,
        image: str,
        task: str = "",
        target: str = "",
        method: str = AUTO,
        verify: bool = False,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Explain one class of an image: the raw heatmap (16-bit PNG) and its overlay, in the image's frame.

        Args:
            image: the image file
            task: task name; empty takes the suggested one
            target: class to explain; empty takes the predicted one
            method: explainer, as `tasks` lists them; auto: the one that beat random maps when the bundle was built
            verify: whether to delete and insert the heatmap's pixels, beside random maps
        Returns:
            task, method, explained_by (one line: why this explainer), target, probability, evidence, masks,
            forward_passes, seconds, seed, heatmap (file), overlay (file), verification (null without `verify`)
        """
        check_flag("verify", verify)
        with self.opened(image, task) as (opened, facts):
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

    def similar(self, image: str, task: str = "", top_k: int = 6) -> dict:
        """Find the library cases most like an image, best first; the image itself is never among them.

        Args:
            image: the image file
            task: task name; empty takes the suggested one
            top_k: how many cases, 1 to 50
        Returns:
            task, cases: a list of id, label, score (cosine), group_id, source, thumbnail (file)
        """
        count = check_top_k(top_k)
        with self.opened(image, task) as (opened, facts):
            return {**facts, "cases": [self.files.case(case) for case in opened.cases(count)]}

    def explain_case(
        self,
        image: str,
        case_id: str,
        task: str = "",
        method: str = ViTCX.method,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Explain why a library case is like an image: a heatmap on the image, and one on the case's thumbnail.

        Args:
            image: the image file
            case_id: id of the case, as `similar` lists them
            task: task name; empty takes the suggested one
            method: explainer, as `tasks` lists them
        Returns:
            task, case, explanation, mirrored (null for a case without a picture)
        """
        with self.opened(image, task) as (opened, facts):
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
        Returns:
            task, prediction, cases, explanation (null without `explain`, and with method auto where no explainer beats
            random maps), explained_by (one line: which explainer and why), verification (null without `explain` and
            `verify`), seconds, notes
        """
        count = check_top_k(top_k)
        check_flag("explain", explain)
        check_flag("verify", verify)
        with self.opened(image, task) as (opened, facts):
            *_, analysis = opened.steps(target or None, count, explain, method, verify, as_progress(progress))
            return {
                **analysis.to_dict(),
                **facts,
                "cases": [self.files.case(case) for case in analysis.cases],
                "explanation": analysis.explanation and self.files.explanation(analysis.explanation, analysis.image),
            }


def as_progress(progress: gr.Progress) -> Callable[[float, str], None]:
    """Gradio's progress as the (fraction, text) callback of an Analyzer, which ends a call that nobody waits for."""

    def tell(fraction: float, text: str) -> None:
        check_wanted()
        progress(fraction, desc=text)

    return tell
