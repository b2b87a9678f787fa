"""One analysis as a file that needs nothing else: HTML that prints to A4, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from PIL import Image

from medssl.audit.findings import without_file_names
from medssl.bundle.analyzer import Analysis, Analyzer, Progress, case_dict, silent
from medssl.bundle.bundle import Bundle
from medssl.data.tasks import NOT_FOR_DIAGNOSIS, SYNTHETIC
from medssl.errors import ImageError
from medssl.explain import EXPLAINERS, ViTCX
from medssl.explain.choice import AUTO
from medssl.explain.likeness import Likeness
from medssl.files import written_whole
from medssl.heads.config import Thresholds
from medssl.heads.head import Prediction
from medssl.report.figures import audit_findings, figure_rows, verification_curves
from medssl.report.lesions import lesion_picture
from medssl.report.pictures import blend, jpeg_uri
from medssl.report.provenance import provenance
from medssl.report.sentences import NO_EVIDENCE, UNFAMILIAR, percent, pretty
from medssl.templates import environment

SCHEMA_VERSION = 1
OPACITY = 0.55
# Pixels of the longer side: at two pictures abreast on A4 about 200 and 130 dots an inch.
PICTURE_SIDE, CASE_SIDE = 720, 240
CASES = 4
HEATMAP_CAUTION = (
    "The heatmap shows which parts of the image moved this model's answer. It is no segmentation, and no proof that "
    "the answer is right."
)
LESION_CAUTION = "It was fitted to boxes and does not say what moved the class, which is the heatmap's question."
LIKENESS_CAUTION = "Cases that look alike may differ in diagnosis."
TEMPLATES = environment("medssl.report", "pages")
TEMPLATES.filters |= {"pretty": pretty, "percent": percent}


@dataclass(frozen=True)
class ReportOptions:
    """What a report holds: the class to explain (None: the predicted one), by which explainer, how many cases."""

    target: str | None = None
    method: str = AUTO
    top_k: int = CASES
    verify: bool = True


@dataclass(frozen=True)
class Section:
    """A picture with its words that stands below the heatmap of a report."""

    title: str
    caption: str
    image: Image.Image


@dataclass(frozen=True)
class Report:
    """One analysis as an HTML document without any outside address, and as plain JSON values."""

    html: str
    facts: dict
    overlay: Image.Image | None = None

    @property
    def json(self) -> str:
        """The facts as text."""
        return json.dumps(self.facts, indent=2, ensure_ascii=False) + "\n"

    def save(self, folder: str | Path, name: str = "report") -> tuple[Path, Path]:
        """Write NAME.html and NAME.json, each whole. Returns their places. Raises ImageError where it cannot."""
        places = Path(folder) / f"{name}.html", Path(folder) / f"{name}.json"
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for place, text in zip(places, (self.html, self.json), strict=True):
                with written_whole(place) as beside:
                    beside.write_text(text, "utf-8")
        except OSError as error:
            raise ImageError(
                f"The report cannot be written to {folder}: {error.strerror or error}. Give a folder that can."
            ) from error
        return places


def likeness_method(method: str) -> str:
    """The explainer of likenesses that goes with one of a class: itself where it can, else ViT-CX."""
    return method if method != AUTO and EXPLAINERS[method].explains_cases else ViTCX.method


def part(progress: Progress, start: float, end: float) -> Progress:
    """Progress within a stretch of a longer task."""
    return lambda fraction, text: progress(start + (end - start) * fraction, text)


def compose_report(
    opened: Analyzer,
    options: ReportOptions | None = None,
    progress: Progress | None = None,
    now: Callable[[], datetime] | None = None,
) -> Report:
    """The report of an opened picture: class, heatmap with its verification, similar cases with their likeness.

    With a lesion map where the bundle has a localizer. Nothing of the file enters it but the pixels. Raises what
    `Analyzer.steps` and `Analyzer.likeness` raise.
    """
    options, tell = options or ReportOptions(), progress or silent
    *_, analysis = opened.steps(
        options.target, options.top_k, method=options.method, verify=options.verify, progress=part(tell, 0.0, 0.5)
    )
    likenesses, method = [], likeness_method(options.method)
    for number, case in enumerate(analysis.cases):
        step = (0.5 + 0.5 * number / len(analysis.cases), 0.5 + 0.5 * (number + 1) / len(analysis.cases))
        likenesses.append(opened.likeness(case, method, part(tell, *step)))
    created = (now or utc_now)().isoformat(timespec="minutes")
    source = provenance(opened.bundle)
    facts = report_facts(opened.bundle, analysis, likenesses, created, source)
    document = TEMPLATES.get_template("analysis.html.jinja").render(
        **shown_bundle(opened.bundle, created, source),
        **shown_analysis(opened.bundle, analysis),
        picture_id=opened.picture.id,
        cases=[shown_case(analysis.image, likeness) for likeness in likenesses],
        likeness_title=EXPLAINERS[method].title,
        likeness_caution=LIKENESS_CAUTION,
        sections=[(section, jpeg_uri(section.image, PICTURE_SIDE)) for section in lesion_sections(analysis)],
    )
    overlay = analysis.explanation and analysis.explanation.overlay(analysis.image, OPACITY)
    return Report(document, facts, overlay)


def lesion_sections(analysis: Analysis) -> list[Section]:
    """The lesion map, where the bundle has a localizer."""
    found = analysis.lesion_map
    if found is None:
        return []
    which = f"a lesion of {pretty(found.target)}" if found.target else "a lesion"
    caption = (
        f"The box is round the maximum: with a probability of {percent(found.probability)} that place lies in {which}, "
        f"if the picture is like those that the localizer was fitted to. {found.said()} {LESION_CAUTION}"
    )
    return [Section("Where is a lesion seen?", caption, lesion_picture(analysis.image, found, OPACITY))]


def utc_now() -> datetime:
    """This moment, without a place on earth in it."""
    return datetime.now(timezone.utc)


def shown_bundle(bundle: Bundle, created: str, source: dict) -> dict:
    """What the frame of every report takes: the task, its warnings, and how good and of what make the bundle is."""
    return {
        "task": bundle.task,
        "not_for_diagnosis": NOT_FOR_DIAGNOSIS,
        "synthetic": SYNTHETIC if bundle.task.synthetic else "",
        "created": created,
        "figures": figure_rows(bundle.metrics),
        "additions": bundle.metrics.get("additions") or [],
        "findings": audit_findings(bundle.metrics),
        "provenance": source,
    }


def shown_prediction(prediction: Prediction, thresholds: Thresholds) -> dict:
    """What a prediction's bars take: classes by probability, and what its set promises."""
    return {
        "bars": sorted(prediction.probabilities.items(), key=lambda item: -item[1]),
        "level": thresholds.conformal_level,
        "promise": " ".join(thresholds.promise()),
    }


def shown_analysis(bundle: Bundle, analysis: Analysis) -> dict:
    """What the template takes of class and heatmap."""
    prediction, explanation = analysis.prediction, analysis.explanation
    thresholds = bundle.head.thresholds
    return {
        **shown_prediction(prediction, thresholds),
        "image": analysis.image,
        "picture": jpeg_uri(analysis.image, PICTURE_SIDE),
        "notes": analysis.notes,
        "prediction": prediction,
        "threshold": thresholds.familiarity,
        "unfamiliar": UNFAMILIAR,
        "explanation": explanation,
        "heatmap": explanation and jpeg_uri(blend(analysis.image, explanation, OPACITY, PICTURE_SIDE), PICTURE_SIDE),
        "kind": explanation and EXPLAINERS[explanation.method],
        "no_evidence": explanation and NO_EVIDENCE.format(label=pretty(explanation.target)),
        "explained_by": analysis.explained_by,
        "heatmap_caution": HEATMAP_CAUTION,
        "verification": analysis.verification,
        "curves": verification_curves(analysis.verification) if analysis.verification else [],
    }


def shown_case(image: Image.Image, likeness: Likeness) -> dict:
    """What the template takes of a similar case: its facts, and both pictures under their heatmaps."""
    case, mirrored = likeness.case, likeness.mirrored
    own = blend(image, likeness.explanation, OPACITY, CASE_SIDE)
    theirs = mirrored and blend(case.image, mirrored, OPACITY, CASE_SIDE)
    return {
        "case": case,
        "own": jpeg_uri(own, CASE_SIDE),
        "theirs": theirs and jpeg_uri(theirs, CASE_SIDE),
        "evidence": likeness.explanation.evidence,
    }


def report_facts(
    bundle: Bundle,
    analysis: Analysis,
    likenesses: Sequence[Likeness],
    created: str,
    source: dict,
) -> dict:
    """The report in plain JSON types, without pixels."""
    found = analysis.to_dict()
    del found["seconds"]
    cases = [
        {
            **case_dict(likeness.case),
            "likeness": likeness.explanation.to_dict(),
            "mirrored": likeness.mirrored and likeness.mirrored.to_dict(),
        }
        for likeness in likenesses
    ]
    caution = analysis.explanation and EXPLAINERS[analysis.explanation.method].caution
    return {
        **common_facts(bundle, created, source),
        "image": {"width": analysis.image.width, "height": analysis.image.height},
        **found,
        "cases": cases,
        "cautions": [text for text in (caution, HEATMAP_CAUTION, LIKENESS_CAUTION) if text],
    }


def common_facts(bundle: Bundle, created: str, source: dict) -> dict:
    """What every report says in JSON beside what was found."""
    return {
        "schema_version": SCHEMA_VERSION,
        "created": created,
        "not_for_diagnosis": NOT_FOR_DIAGNOSIS,
        "synthetic": bundle.task.synthetic,
        "figures": without_file_names(bundle.metrics),
        "provenance": source,
    }
