"""The HTTP endpoints of the app: tasks, classify, explain, explain_case, similar, analyze. Plain JSON in and out."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from medssl.audit.findings import without_file_names
from medssl.bundle.analyzer import Analyzer, PictureEncodings, case_dict
from medssl.bundle.bundle import Bundle, suggest_task
from medssl.errors import BundleError, ImageError, LibraryError, MedSSLError
from medssl.explain import Explanation, ViTCX
from medssl.library.library import Case
from medssl.web.served_files import served_png
from medssl.web.uploads import read_upload
from medssl.web.wanted import Stopped, check_wanted

GENERAL_ERROR = "Something went wrong in this program, not in your image. Try again; if it stays, tell its maintainer."
NO_FILE = "No image was given. Choose a PNG, JPEG, TIFF, WebP, BMP or DICOM file first."
MOST_CASES = 50
# Model runs of the page and of the API wait for each other: two at once are each slower than one after the other.
MODEL = {"concurrency_id": "model", "concurrency_limit": 1}
log = logging.getLogger(__name__)


def plain_error(error: Exception, toast: bool) -> gr.Error:
    """What the user is told: a medssl error's own sentence, or a general one; the log gets places, never content."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, MedSSLError):
        # A toast renders HTML, and a sentence may name what stands in a file; a client gets the sentence as it is.
        return gr.Error(escape(str(error), quote=False) if toast else str(error), print_exception=False)
    if isinstance(error, Stopped):
        return gr.Error("Stopped: nobody waits for this any more.", print_exception=False)
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = " <- ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    log.error("%s at %s", type(error).__name__, places)
    return gr.Error(GENERAL_ERROR, print_exception=False)


def guarded(function: Callable, toast: bool = False) -> Callable:
    """The function, or generator function, with every exception as a plain `gr.Error` (for a toast: escaped)."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Iterator:  # noqa: ANN401
            try:
                yield from function(*args, **kwargs)
            except Exception as error:
                raise plain_error(error, toast) from error

        return stream

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise plain_error(error, toast) from error

    return call


def pick(bundles: Mapping[str, Bundle], name: object) -> Bundle:
    """The bundle of that task. Raises BundleError naming the loaded ones."""
    if isinstance(name, str) and name in bundles:
        return bundles[name]
    allowed = f"Loaded tasks: {', '.join(bundles)}." if bundles else "No bundle is loaded; start the app with one."
    raise BundleError(f"There is no task {name!r} here. {allowed}")


def check_top_k(value: object) -> int:
    """A number of cases as an int. Raises LibraryError outside 1 to 50."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not 1 <= number <= MOST_CASES or int(number) != number:
        raise LibraryError(f"top_k is {value!r}; allowed are whole numbers from 1 to {MOST_CASES}.")
    return int(number)


def backbone_name(bundle: Bundle) -> str:
    """The backbone's name or Hub id; of a folder only its own name, as where it lies is nobody's business."""
    name = str(bundle.head.backbone.get("id", "not stated"))
    return Path(name).name if Path(name).is_absolute() else name


def describe(name: str, bundle: Bundle) -> dict:
    """One entry of the endpoint `tasks`."""
    return {
        "name": name,
        "title": bundle.task.title,
        "labels": list(bundle.labels),
        "modality": bundle.task.modality,
        "backbone": {**bundle.head.backbone, "id": backbone_name(bundle)},
        "explainers": bundle.explainers,
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

    def __init__(self, bundles: Mapping[str, Bundle]) -> None:
        self.bundles = bundles
        with gr.Row(visible=False, elem_id="api-row"):
            image = gr.File(label="image file: PNG, JPEG, TIFF, WebP, BMP or DICOM", elem_id="api-image")
            task = gr.Textbox("", label="task name, see `tasks`; empty: the suggested one", elem_id="api-task")
            target = gr.Textbox("", label="class to explain; empty: the predicted one", elem_id="api-target")
            top_k = gr.Number(6, label=f"number of similar cases, 1 to {MOST_CASES}", elem_id="api-top-k")
            explain = gr.Checkbox(True, label="whether to compute the heatmap", elem_id="api-explain")
            method = gr.Textbox(ViTCX.method, label="explainer, as `tasks` lists them", elem_id="api-method")
            verify = gr.Checkbox(False, label="whether to verify the heatmap", elem_id="api-verify")
            case = gr.Textbox("", label="id of a case, as `similar` lists them", elem_id="api-case")
            self.out = gr.JSON(label="result", elem_id="api-out")
        self.files = Files(self.out)
        self.connect(self.tasks, [])
        self.connect(self.classify, [image, task])
        self.connect(self.explain, [image, task, target, method, verify])
        self.connect(self.explain_case, [image, case, task, method])
        self.connect(self.similar, [image, task, top_k])
        self.connect(self.analyze, [image, task, target, top_k, explain, method, verify])

    def connect(self, endpoint: Callable, inputs: list) -> None:
        """Make a method an endpoint of its own name; what takes an image waits for the model."""
        limits = MODEL if inputs else {}
        gr.on([], guarded(endpoint), inputs, self.out, api_name=endpoint.__name__, api_visibility="public", **limits)

    def opened(self, image: str | None, task: str) -> tuple[Analyzer, dict]:
        """An uploaded image opened for a task, and what the answer says of the task. Raises MedSSLError."""
        if not isinstance(image, str) or not image:
            raise ImageError(NO_FILE)
        if not task:
            if not self.bundles:
                pick(self.bundles, task)
            encodings = PictureEncodings(read_upload(image))
            suggestions = suggest_task(self.bundles, encodings)
            task = suggestions[0].name
            facts = {"task": task, "suggested": [asdict(suggestion) for suggestion in suggestions]}
            return Analyzer.open(self.bundles[task], encodings), facts
        bundle = pick(self.bundles, task)
        return Analyzer.open(bundle, read_upload(image)), {"task": task}

    def tasks(self) -> list[dict]:
        """List the loaded tasks: name, title, labels, modality, backbone, explainers and measured figures.

        Returns:
            a list of objects with name, title, labels, modality, backbone, explainers (name: title), figures
        """
        return [describe(name, bundle) for name, bundle in self.bundles.items()]

    def classify(self, image: str, task: str = "") -> dict:
        """Classify an image: label, probabilities, 90 % prediction set and familiarity. Research only, no diagnosis.

        Args:
            image: the image file
            task: task name; empty takes the task whose cases the image resembles most, and lists all under "suggested"
        Returns:
            task, label, probability, probabilities, prediction_set, familiarity, familiar
        """
        opened, facts = self.opened(image, task)
        return {**facts, **asdict(opened.prediction)}

    def explain(
        self,
        image: str,
        task: str = "",
        target: str = "",
        method: str = ViTCX.method,
        verify: bool = False,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict:
        """Explain one class of an image: the raw heatmap (16-bit PNG) and its overlay, in the image's frame.

        Args:
            image: the image file
            task: task name; empty takes the suggested one
            target: class to explain; empty takes the predicted one
            method: explainer, as `tasks` lists them
            verify: whether to delete and insert the heatmap's pixels, beside random maps
        Returns:
            task, method, target, probability, evidence, masks, forward_passes, seconds, seed, heatmap (file), overlay
            (file), verification (null without `verify`)
        """
        opened, facts = self.opened(image, task)
        tell = as_progress(progress)
        share = 0.5 if verify else 1.0
        explanation = opened.explanation(target or None, method, lambda done, text: tell(share * done, text))
        shown = self.files.explanation(explanation, opened.picture.image)
        verification = None
        if verify:
            verification = opened.verification(explanation, lambda done, text: tell(0.5 + 0.5 * done, text)).to_dict()
        return {**facts, **shown, "verification": verification}

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
        opened, facts = self.opened(image, task)
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
        opened, facts = self.opened(image, task)
        likeness = opened.likeness(case_id, method, as_progress(progress))
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
        method: str = ViTCX.method,
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
            method: explainer, as `tasks` lists them
            verify: whether to delete and insert the heatmap's pixels, beside random maps
        Returns:
            task, prediction, cases, explanation (null without `explain`), verification (null without `explain` and
            `verify`), seconds, notes
        """
        count = check_top_k(top_k)
        opened, facts = self.opened(image, task)
        *_, analysis = opened.steps(target or None, count, explain, method, verify, as_progress(progress))
        return {
            **analysis.to_dict(),
            **facts,
            "cases": [self.files.case(case) for case in analysis.cases],
            "explanation": self.files.explanation(analysis.explanation, analysis.image) if explain else None,
        }


def as_progress(progress: gr.Progress) -> Callable[[float, str], None]:
    """Gradio's progress as the (fraction, text) callback of an Analyzer, which ends a call that nobody waits for."""

    def tell(fraction: float, text: str) -> None:
        check_wanted()
        progress(fraction, desc=text)

    return tell
