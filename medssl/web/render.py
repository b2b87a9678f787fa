"""The page's HTML: its templates in html/, and what each is given. All values are escaped by Jinja."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle, Suggestion
from medssl.data.tasks import NOT_FOR_DIAGNOSIS, SYNTHETIC, Task
from medssl.explain import EXPLAINERS
from medssl.explain.faithfulness import CURVE_METRICS, METRICS
from medssl.explain.likeness import Likeness
from medssl.explain.verification import Verification
from medssl.heads.config import Thresholds
from medssl.heads.head import Prediction
from medssl.library.library import Case
from medssl.templates import environment
from medssl.web.coverage import coverage_html
from medssl.web.pictures import data_uri
from medssl.web.service import backbone_name

BEATS_CHANCE = 0.9  # of the random maps
UNFAMILIAR = "This image does not look like the images this model has seen; do not trust the class."
NO_EVIDENCE = (
    "No evidence found: no part of this image moved the probability of “{label}”. The picture is shown as it is."
)
SERVE_REAL = (
    "python scripts/build.py --data FOLDER --task brain --backbone dinov2-small --out bundles/brain && python app.py"
)
# What the accordion shows, in this order; a figure that a bundle does not have is left out.
FIGURES = {
    "accuracy": ("Accuracy", "%"),
    "balanced_accuracy": ("Balanced accuracy", "%"),
    "macro_f1": ("Macro F1", ""),
    "auroc": ("AUROC", ""),
    "ece": ("Calibration error (ECE)", ""),
    "nll": ("Negative log-likelihood", ""),
    "conformal_coverage": ("Prediction set holds the true class", "%"),
    "mean_set_size": ("Mean size of the prediction set", ""),
    "precision_at_1": ("Most similar case has the same class", "%"),
    "precision_at_5": ("Same class among the 5 most similar", "%"),
    "map_at_10": ("Retrieval mAP@10", ""),
    "own": ("Own test images flagged as unfamiliar", "%"),
}


def pretty(label: str) -> str:
    """A label as people write it."""
    return label.replace("_", " ")


def percent(value: float) -> str:
    """A share as text, never rounded up to certainty."""
    if value > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if value < 0.001 else f"{100 * value:.1f} %"


TEMPLATES = environment("medssl.web", "html")
TEMPLATES.filters |= {"pretty": pretty, "percent": percent}


def html(template: str, **values: Any) -> str:  # noqa: ANN401
    """The template of that name, filled in."""
    return TEMPLATES.get_template(f"{template}.html.jinja").render(**values)


def header(tasks: Sequence[Task]) -> str:
    """The page's title and the standing notice."""
    drawn = [task for task in tasks if task.synthetic]
    which = "" if len(drawn) == len(tasks) else f" Of these tasks: {', '.join(task.title for task in drawn)}."
    return html(
        "header",
        titles=", ".join(task.title for task in tasks),
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
        bars=sorted(prediction.probabilities.items(), key=lambda item: -item[1]),
        level=thresholds.conformal_level,
        sure="one class" if count == 1 else f"{count} classes: not sure which",
        names=", ".join(pretty(label) for label in prediction.prediction_set),
        promise=" ".join(thresholds.promise()),
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


def suggestion(task: Task, best: Suggestion, notes: Sequence[str]) -> str:
    """Which task an upload seems to be for, and what is to be known of how it was read."""
    return html("suggestion", title=task.title, familiar=best.familiar, familiarity=best.familiarity, notes=notes)


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
    beats = found.insertion_minus_deletion.beats
    curves = [(METRICS[name].title, getattr(found, name)) for name in CURVE_METRICS]
    return html("verification", found=found, beats=beats, better=beats >= BEATS_CHANCE, curves=curves)


def figures(bundle: Bundle) -> str:
    """The measured figures of a bundle with their 95 % intervals, and what its audit found."""
    metrics = bundle.metrics
    named = {name: metric for name in FIGURES if is_metric(metric := find_metric(metrics, name))}
    rows = [figure_row(*FIGURES[name], metric) for name, metric in named.items()]
    recalls = find_metric(metrics, "per_class_recall") or {}
    rows += [
        figure_row(f"Found among true “{pretty(label)}”", "%", metric)
        for label, metric in recalls.items()
        if is_metric(metric)
    ]
    findings = (metrics.get("audit") or {}).get("findings") or []
    return html(
        "figures",
        modality=bundle.task.modality,
        backbone=backbone_name(bundle),
        rows=rows,
        coverage=coverage_html(metrics, bundle.head.thresholds),
        findings=[(str(finding.get("severity", "info")), finding_text(finding)) for finding in findings],
    )


def finding_text(finding: Mapping) -> str:
    """A finding of the audit in one line, with its count where it counts something."""
    count = f" ({finding['count']})" if finding.get("examples") and "count" in finding else ""
    return f"{finding.get('kind', 'finding')}{count}: {finding.get('message', '')}"


def find_metric(metrics: Mapping, name: str) -> Mapping | None:
    """The first metric of that name, whether at the top of metrics.json or inside one of its sections."""
    if name in metrics:
        return metrics[name]
    sections = (value for value in metrics.values() if isinstance(value, Mapping))
    return next((section[name] for section in sections if name in section), None)


def is_metric(value: object) -> bool:
    """Whether this is a figure with an interval, as evaluation writes it."""
    return isinstance(value, Mapping) and isinstance(value.get("value"), (int, float))


def figure_row(title: str, unit: str, metric: Mapping) -> tuple[str, ...]:
    """One line of the table of figures, a text a cell."""

    def text(value: float | None) -> str:
        if value is None:
            return "–"
        return f"{100 * value:.1f} %" if unit == "%" else f"{value:.3f}"

    interval = f"{text(metric.get('low'))} to {text(metric.get('high'))}" if metric.get("low") is not None else "–"
    return (title, text(metric["value"]), interval, str(metric.get("n", "–")))
