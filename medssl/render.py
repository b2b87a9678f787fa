"""HTML and pictures for the page: class bars, warnings, figures, one case. Every value is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

from medssl.heads import Prediction
from medssl.library import Case
from medssl.tasks import NOT_FOR_DIAGNOSIS, Task

UNFAMILIAR = "This image does not look like the images this model has seen; do not trust the class."
NO_EVIDENCE = "No evidence found: no part of this image moved the probability of “{label}”. The picture is shown as it is."
NO_BUNDLE = """
<div class="ms-card" id="no-bundle"><h2>No bundle is loaded</h2>
<p>A bundle holds what this page needs for one task: the fitted head, its cases and its measured figures.
Build one from a folder of images, then start the page with it:</p>
<pre><code>python scripts/build.py --data FOLDER --task brain --backbone dinov2-small --out bundles/brain
python app.py --bundle bundles/brain</code></pre>
<p>Bundles in the folder <code>bundles/</code> are found without <code>--bundle</code>.</p></div>
"""
EMPTY = '<div class="ms-card ms-empty">Choose an image, then press <b>Analyze</b>: the class, similar cases and a heatmap appear here.</div>'
# What the accordion shows, in this order; a figure that a bundle does not have is left out.
FIGURES = {
    "accuracy": ("Accuracy", "%"),
    "balanced_accuracy": ("Balanced accuracy", "%"),
    "macro_f1": ("Macro F1", ""),
    "auroc": ("AUROC", ""),
    "ece": ("Calibration error (ECE)", ""),
    "nll": ("Negative log-likelihood", ""),
    "conformal_coverage": ("Prediction set holds the true class", "%"),
    "conformal_set_size": ("Mean size of the prediction set", ""),
    "precision_at_1": ("Most similar case has the same class", "%"),
    "precision_at_5": ("Same class among the 5 most similar", "%"),
    "map_at_10": ("Retrieval mAP@10", ""),
}


def pretty(label: str) -> str:
    """A label as people write it."""
    return label.replace("_", " ")


def percent(value: float) -> str:
    """A share as text, never rounded up to certainty."""
    if value > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if value < 0.001 else f"{100 * value:.1f} %"


def header(tasks: Sequence[Task]) -> str:
    """The page's title and the standing notice."""
    titles = ", ".join(task.title for task in tasks) or "no task loaded"
    return (
        f'<header class="ms-header"><h1>medssl</h1><p>What is it, where is it seen, which known cases look like it: '
        f'{escape(titles)}.</p></header><div class="ms-notice" role="note">{escape(NOT_FOR_DIAGNOSIS)}</div>'
    )


def limits(minutes: int) -> str:
    """What the page is not for, and what happens to an upload."""
    return f"""<div class="ms-limits"><h3>What this is not for</h3><ul>
<li>{escape(NOT_FOR_DIAGNOSIS)}</li>
<li>It knows only the classes listed for each task. An image of anything else still gets one of them.</li>
<li>The heatmap shows which parts moved the model's answer, not where a disease is. Cases that look alike may differ in diagnosis.</li>
<li>The figures hold for images like those it was measured on, not for another scanner, stain or hospital.</li>
</ul><p><b>Uploads are not kept.</b> The file's metadata is dropped when it is read; the file and the pictures made from it
are deleted from this server within {minutes} minutes; nothing of it is logged or sent anywhere.</p></div>"""


def verdict(prediction: Prediction, task: Task, level: float) -> str:
    """The predicted class, and one bar a class; members of the prediction set are marked."""
    rows = []
    for label, value in sorted(prediction.probabilities.items(), key=lambda item: -item[1]):
        inside = label in prediction.prediction_set
        mark = '<span class="ms-mark">in the set</span>' if inside else ""
        rows.append(
            f'<div class="ms-bar{" ms-in" if inside else ""}" data-label="{escape(label)}">'
            f'<span class="ms-name">{escape(pretty(label))}{mark}</span><span class="ms-value">{percent(value)}</span>'
            f'<span class="ms-track"><span style="width:{100 * value:.2f}%"></span></span></div>'
        )
    count = len(prediction.prediction_set)
    names = ", ".join(pretty(label) for label in prediction.prediction_set)
    sure = "one class" if count == 1 else f"{count} classes: not sure which"
    return (
        f'<div class="ms-card"><div class="ms-task">{escape(task.title)}</div>'
        f'<div class="ms-label" id="predicted-class">{escape(pretty(prediction.label))}'
        f" <span>{percent(prediction.probability)}</span></div>{''.join(rows)}"
        f'<p class="ms-small"><b>{100 * level:.0f} % prediction set</b> ({sure}): {escape(names)}. Such sets hold the '
        f"true class in about {100 * level:.0f} of 100 images like those the model was fitted on.</p></div>"
    )


def warning(prediction: Prediction, threshold: float | None) -> str:
    """The plain warning for an unfamiliar image, else nothing."""
    if prediction.familiar is not False:
        return ""
    figure = f" Familiarity {prediction.familiarity:.2f}" if prediction.familiarity is not None else ""
    figure += f", expected at least {threshold:.2f}." if figure and threshold is not None else ""
    return f'<div class="ms-warning" role="alert"><b>{UNFAMILIAR}</b><span>{figure}</span></div>'


def case_caption(case: Case) -> str:
    """One line under a case's picture."""
    return f"{pretty(case.label)} · {case.score:.2f}"


def case_facts(case: Case, rank: int) -> str:
    """All facts of one case, beside its picture at full thumbnail size."""
    picture = f'<img src="{data_uri(case.image)}" alt="case {rank}">' if case.image is not None else ""
    facts = {
        "Label": pretty(case.label),
        "Similarity": f"{case.score:.4f} (cosine; 1 = same direction)",
        "Group": case.group_id or "not stated",
        "Source": case.source or "not stated",
        "Case": case.id,
    }
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f'<div class="ms-case">{picture}<div><b>Case {rank}</b><dl>{rows}</dl></div></div>'


def figures(metrics: Mapping, modality: str, backbone: str) -> str:
    """The measured figures of a bundle with their 95 % intervals, and what its audit found."""
    found = {name: metric for name in FIGURES if is_metric(metric := find_metric(metrics, name))}
    rows = "".join(figure_row(*FIGURES[name], metric) for name, metric in found.items())
    table = (
        f'<table class="ms-figures"><thead><tr><th>Measured on the test split</th><th>Value</th><th>95 % interval</th>'
        f"<th>Images</th></tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else "<p>No figures were measured for this bundle.</p>"
    )
    findings = (metrics.get("audit") or {}).get("findings") or []
    items = "".join(
        f'<li><span class="ms-severity ms-{escape(str(finding.get("severity", "info")))}">'
        f"{escape(str(finding.get('severity', 'info')))}</span> {escape(str(finding.get('message', '')))}</li>"
        for finding in findings
    )
    audit = f"<ul>{items}</ul>" if items else "<p>The audit of the data reported nothing.</p>"
    facts = f'<p class="ms-small">Modality: {escape(modality)}. Backbone: {escape(backbone)}.</p>'
    return f'<div class="ms-figure-box">{facts}{table}<h4>Audit of the data</h4>{audit}</div>'


def find_metric(metrics: Mapping, name: str) -> Mapping | None:
    """The first metric of that name, whether at the top of metrics.json or inside one of its sections."""
    if name in metrics:
        return metrics[name]
    sections = (value for value in metrics.values() if isinstance(value, Mapping))
    return next((section[name] for section in sections if name in section), None)


def is_metric(value: object) -> bool:
    """Whether this is a figure with an interval, as evaluation writes it."""
    return isinstance(value, Mapping) and isinstance(value.get("value"), (int, float))


def figure_row(title: str, unit: str, metric: Mapping) -> str:
    """One line of the table of figures."""

    def text(value: float | None) -> str:
        if value is None:
            return "–"
        return f"{100 * value:.1f} %" if unit == "%" else f"{value:.3f}"

    interval = f"{text(metric.get('low'))} to {text(metric.get('high'))}" if metric.get("low") is not None else "–"
    return (
        f"<tr><td>{title}</td><td>{text(metric['value'])}</td><td>{interval}</td><td>{escape(str(metric.get('n', '–')))}</td></tr>"
    )


def data_uri(image: Image.Image) -> str:
    """A small picture as a PNG data address."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
.ms-header h1 { font-size: 1.6rem; margin: 0; letter-spacing: -.01em; }
.ms-header p { margin: .1rem 0 .7rem; color: var(--body-text-color-subdued); }
.ms-notice { border-left: 4px solid #d97706; background: color-mix(in srgb, #d97706 12%, transparent);
  color: var(--body-text-color); padding: .5rem .8rem; border-radius: 4px; font-size: .92rem; }
.ms-card, .ms-limits, .ms-case { background: var(--block-background-fill); color: var(--body-text-color);
  border: 1px solid var(--border-color-primary); border-radius: 10px; padding: .9rem 1.1rem; }
.ms-empty { color: var(--body-text-color-subdued); padding: 2.4rem 1.2rem; text-align: center; }
.ms-task, .ms-small { color: var(--body-text-color-subdued); font-size: .85rem; }
.ms-small { margin: .7rem 0 0; }
.ms-label { font-size: 1.7rem; font-weight: 700; line-height: 1.25; margin: 0 0 .5rem; }
.ms-label span { font-weight: 400; font-size: 1.2rem; color: var(--body-text-color-subdued); white-space: nowrap; }
.ms-bar { display: grid; grid-template-columns: 1fr auto; gap: 0 .8rem; padding: .22rem 0; font-size: .95rem; }
.ms-bar .ms-track { grid-column: 1 / 3; height: 8px; border-radius: 4px; overflow: hidden;
  background: color-mix(in srgb, var(--body-text-color) 12%, transparent); }
.ms-bar .ms-track span { display: block; height: 100%; min-width: 2px; background: #94a3b8; }
.ms-bar.ms-in .ms-track span { background: #0e7490; }
.dark .ms-bar.ms-in .ms-track span { background: #22b8d6; }
.ms-value { font-variant-numeric: tabular-nums; }
.ms-mark { font-size: .72rem; margin-left: .5rem; padding: .05rem .45rem; border-radius: 9px; color: #0e7490;
  border: 1px solid #0e7490; vertical-align: 1px; white-space: nowrap; }
.dark .ms-mark { color: #67d8ee; border-color: #67d8ee; }
.ms-warning { border: 1px solid #dc2626; border-left-width: 6px; border-radius: 6px; padding: .7rem .9rem;
  background: color-mix(in srgb, #dc2626 12%, transparent); color: var(--body-text-color); }
.ms-warning span { display: block; font-size: .85rem; }
.ms-note { border-left: 4px solid #64748b; padding: .4rem .7rem; color: var(--body-text-color); font-size: .9rem;
  background: color-mix(in srgb, #64748b 12%, transparent); border-radius: 4px; }
.ms-case { display: flex; gap: 1rem; align-items: flex-start; font-size: .9rem; flex-wrap: wrap; }
.ms-case img { width: 128px; border-radius: 6px; }
.ms-case dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem .8rem; margin: .3rem 0 0; }
.ms-case dt { color: var(--body-text-color-subdued); } .ms-case dd { margin: 0; overflow-wrap: anywhere; }
.ms-figure-box { overflow-x: auto; color: var(--body-text-color); }
.ms-figures { width: 100%; border-collapse: collapse; font-size: .9rem; }
.ms-figures th, .ms-figures td { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid var(--border-color-primary); }
.ms-figures td:nth-child(n+2) { font-variant-numeric: tabular-nums; white-space: nowrap; }
.ms-severity { font-size: .72rem; padding: .05rem .45rem; border-radius: 9px; border: 1px solid currentColor; }
.ms-error { color: #dc2626; } .ms-warning.ms-severity { background: none; } .dark .ms-error { color: #f87171; }
.ms-limits { font-size: .9rem; } .ms-limits h3 { margin: 0 0 .3rem; } .ms-limits ul { margin: 0 0 .5rem 1.1rem; list-style: disc; }
#no-bundle pre { overflow-x: auto; padding: .7rem; border-radius: 6px;
  background: color-mix(in srgb, var(--body-text-color) 8%, transparent); }
#cases .caption-label, #examples .caption-label { white-space: normal; max-width: 100%; font-size: .75rem;
  text-overflow: clip; line-height: 1.15; }
@media (max-width: 640px) { .ms-label { font-size: 1.4rem; } .gradio-container { padding: .5rem !important; } }
"""
