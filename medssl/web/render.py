"""The page's HTML: its templates in html/, and what each is given. All values are escaped by Jinja."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle, Suggestion
from medssl.data.tasks import NOT_FOR_DIAGNOSIS, SYNTHETIC, Task
from medssl.explain import EXPLAINERS
from medssl.explain.likeness import Likeness
from medssl.explain.verification import Verification
from medssl.heads.config import Thresholds
from medssl.heads.head import Prediction
from medssl.heads.lesion_map import LesionMap
from medssl.library.library import Case
from medssl.report.figures import audit_findings, figure_rows, verification_curves
from medssl.report.pictures import data_uri
from medssl.report.provenance import backbone_name
from medssl.report.report import shown_prediction
from medssl.report.sentences import NO_EVIDENCE, UNFAMILIAR, percent, pretty
from medssl.templates import environment
from medssl.web.coverage import coverage_html

SERVE_REAL = (
    "python scripts/build.py --data FOLDER --task brain --backbone dinov2-small --out bundles/brain && python app.py"
)
TEMPLATES = environment("medssl.web", "html")
TEMPLATES.filters |= {"pretty": pretty, "percent": percent}


def html(template: str, **values: Any) -> str:  # noqa: ANN401
    """The template of that name, filled in."""
    return TEMPLATES.get_template(f"{template}.html.jinja").render(**values)


# The tour's steps: what each speaks of (a CSS selector), and what it says.
TOUR = (
    {
        "target": "#upload",
        "said": "Drop an image here, several, or take an example. It is read, shown, and its task suggested.",
    },
    {"target": "#analyze", "said": "Analyze shows the class first, then similar known cases, then the heatmap."},
    {"target": "#right", "said": "Choose a case to see why it is similar; arrow keys go on, Escape closes it."},
)


def tour() -> str:
    """Three steps for who is here for the first time."""
    return html("tour", steps=TOUR)


def header(tasks: Sequence[Task]) -> str:
    """The page's title and the standing notice."""
    drawn = [task for task in tasks if task.synthetic]
    which = "" if len(drawn) == len(tasks) else f" Of these tasks: {', '.join(task.title for task in drawn)}."
    return html(
        "header",
        not_for_diagnosis=NOT_FOR_DIAGNOSIS,
        synthetic=SYNTHETIC + which if drawn else "",
        serve_real=SERVE_REAL,
    )


def no_bundle() -> str:
    """What to do where nothing is loaded."""
    return html("no_bundle")


def empty() -> str:
    """What stands where results will be."""
    return html("empty")


def example_sentence(task: Task, label: str) -> str:
    """What an example asks, and its true label."""
    *others, last = map(pretty, task.labels)
    asked = f"{', '.join(others)} or {last}" if others else last
    return f"{task.title}: is it {asked}? True label: {pretty(label)}."


def limits(minutes: int) -> str:
    """What the page is not for, and what happens to an upload."""
    return html("limits", not_for_diagnosis=NOT_FOR_DIAGNOSIS, minutes=minutes)


def toast(said: str) -> str:
    """A sentence where Gradio shows HTML."""
    return html("toast", said=said)


def verdict(prediction: Prediction, task: Task, thresholds: Thresholds) -> str:
    """The predicted class, and one bar a class; members of the prediction set are marked, with what it promises."""
    count = len(prediction.prediction_set)
    return html(
        "verdict",
        prediction=prediction,
        task=task,
        synthetic=SYNTHETIC,
        **shown_prediction(prediction, thresholds),
        sure="one class" if count == 1 else f"{count} classes: not sure which",
        names=", ".join(pretty(label) for label in prediction.prediction_set),
    )


def warning(prediction: Prediction, threshold: float | None) -> str:
    """The plain warning for an unfamiliar image, else nothing."""
    if prediction.familiar is not False:
        return ""
    figure = f"Familiarity {prediction.familiarity:.2f}" if prediction.familiarity is not None else ""
    figure += f", expected at least {threshold:.2f}." if figure and threshold is not None else ""
    return html("warning", said=UNFAMILIAR, figure=figure)


def note(said: str) -> str:
    """A remark beside a result."""
    return html("note", said=said)


def small(said: str) -> str:
    """A remark in small letters."""
    return html("small", said=said)


def suggestion(task: Task, best: Suggestion, notes: Sequence[str], number: int | None = None) -> str:
    """Which task an upload seems to be for, and what is to be known of how it was read.

    `number` (from 0) is that of the picture which suggests it, where there are several.
    """
    return html(
        "suggestion",
        title=task.title,
        familiar=best.familiar,
        familiarity=best.familiarity,
        notes=notes,
        number=number,
    )


def heatmap_note(analysis: Analysis, stopped: bool = False) -> str:
    """What a heatmap shows in words, which explainer made it, and what each step took."""
    explanation = analysis.explanation
    return html(
        "heatmap_note",
        explanation=explanation,
        explained_by=analysis.explained_by,
        kind=EXPLAINERS[explanation.method],
        no_evidence=NO_EVIDENCE.format(label=pretty(explanation.target)),
        seconds=analysis.seconds,
        stopped=stopped,
    )


def lesion_note(found: LesionMap) -> str:
    """What a lesion map says, and how often such a maximum was right."""
    return html("lesion_note", found=found)


def case_caption(case: Case) -> str:
    """What stands under a case's picture: label, then similarity and group."""
    return f"{pretty(case.label)}\n{case.score:.2f} · {case.group_id}".rstrip(" ·")


def case_facts(case: Case, rank: int) -> str:
    """All facts of one case, beside its picture at full thumbnail size."""
    facts = {
        "Label": pretty(case.label),
        "Similarity": f"{case.score:.4f} (cosine; 1 = same direction)",
        "Group": case.group_id or "not stated",
        "Source": case.source or "not stated",
        "Case": case.id,
    }
    return html("case", picture=case.image and data_uri(case.image), rank=rank, facts=facts)


def map_sheet(address: str) -> str:
    """The thumbnails of the map's dots."""
    return html("map_sheet", address=address)


def map_case(case: Case, compared: bool) -> str:
    """The facts of a case that was opened on the map; `compared`: its score is that of the image at hand."""
    facts = {
        **({"Similarity": f"{case.score:.4f} (cosine to your image)"} if compared else {}),
        "Group": case.group_id or "not stated",
        "Source": case.source or "not stated",
        "Case": case.id,
    }
    return html("map_case", picture=case.image and data_uri(case.image), title=pretty(case.label), facts=facts)


def likeness_note(likeness: Likeness, rank: int, method: str, asked: str) -> str:
    """Why a case is similar, by which explainer, and which one was asked for and cannot do it."""
    return html(
        "likeness_note",
        rank=rank,
        score=likeness.case.score,
        method=EXPLAINERS[method].title,
        instead_of="" if asked == method else EXPLAINERS[asked].title,
        evidence=likeness.explanation.evidence,
    )


def verification(found: Verification) -> str:
    """A heatmap's deletion and insertion beside those of random maps on the same image, and a sentence."""
    return html("verification", found=found, curves=verification_curves(found))


def figures(bundle: Bundle) -> str:
    """The measured figures of a bundle with their 95 % intervals, and what its audit found."""
    return html(
        "figures",
        modality=bundle.task.modality,
        backbone=backbone_name(bundle),
        rows=figure_rows(bundle.metrics),
        coverage=coverage_html(bundle.metrics, bundle.head.thresholds),
        findings=audit_findings(bundle.metrics),
    )
