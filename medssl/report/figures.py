"""The measured figures of a bundle and what its audit found, as lines of text for page and report."""

from __future__ import annotations

from collections.abc import Mapping

from medssl.explain.faithfulness import CURVE_METRICS, METRICS
from medssl.explain.verification import AgainstRandom, Verification
from medssl.report.sentences import pretty

# What is shown, in this order; a figure that a bundle does not have is left out.
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


def figure_rows(metrics: Mapping) -> list[tuple[str, ...]]:
    """The measured figures with their 95 % intervals, one line each: title, value, interval, images."""
    named = {name: metric for name in FIGURES if is_metric(metric := find_metric(metrics, name))}
    rows = [figure_row(*FIGURES[name], metric) for name, metric in named.items()]
    recalls = find_metric(metrics, "per_class_recall") or {}
    return rows + [
        figure_row(f"Found among true “{pretty(label)}”", "%", metric)
        for label, metric in recalls.items()
        if is_metric(metric)
    ]


def verification_curves(found: Verification) -> list[tuple[str, AgainstRandom]]:
    """The curves of a verification by their titles."""
    return [(METRICS[name].title, getattr(found, name)) for name in CURVE_METRICS]


def audit_findings(metrics: Mapping) -> list[tuple[str, str]]:
    """What the audit found: severity and sentence."""
    findings = (metrics.get("audit") or {}).get("findings") or []
    return [(str(finding.get("severity", "info")), finding_text(finding)) for finding in findings]


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
