"""HTML and pictures for the page: class bars, warnings, figures, one case. Every value is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from medssl.bundle.bundle import Bundle
from medssl.data.tasks import NOT_FOR_DIAGNOSIS, SYNTHETIC, Task
from medssl.explain import Explanation
from medssl.explain.faithfulness import CURVE_METRICS, METRICS
from medssl.explain.verification import Verification
from medssl.heads.config import Thresholds
from medssl.heads.head import Prediction
from medssl.images.read import read_image
from medssl.library.library import Case

SHOWN_SIDE = 1024
BEATS_CHANCE = 0.9  # of the random maps
UNFAMILIAR = "This image does not look like the images this model has seen; do not trust the class."
NO_EVIDENCE = (
    "No evidence found: no part of this image moved the probability of “{label}”. The picture is shown as it is."
)
SERVE_REAL = (
    "python scripts/build.py --data FOLDER --task brain --backbone dinov2-small --out bundles/brain && python app.py"
)
NO_BUNDLE = """
<div class="ms-card" id="no-bundle"><h2>No bundle is loaded</h2>
<p>A bundle holds what this page needs for one task: the fitted head, its cases and its measured figures.
Build one from a folder of images, then start the page with it:</p>
<pre><code>python scripts/build.py --data FOLDER --task brain --backbone dinov2-small --out bundles/brain
python app.py --bundle bundles/brain</code></pre>
<p>Bundles in the folder <code>bundles/</code> are found without <code>--bundle</code>.</p></div>
"""
EMPTY = (
    '<div class="ms-card ms-empty">Choose an image, then press <b>Analyze</b>: '
    "the class, similar cases and a heatmap appear here.</div>"
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


def header(tasks: Sequence[Task]) -> str:
    """The page's title and the standing notice."""
    titles = ", ".join(task.title for task in tasks) or "no task loaded"
    drawn = [task for task in tasks if task.synthetic]
    synthetic = ""
    if drawn:
        which = "" if len(drawn) == len(tasks) else f" Of these tasks: {', '.join(task.title for task in drawn)}."
        synthetic = (
            f'<div class="ms-synthetic" role="note" id="synthetic"><b>{escape(SYNTHETIC + which)}</b> To serve your '
            f"own images: <code>{escape(SERVE_REAL)}</code></div>"
        )
    return (
        f'<header class="ms-header"><h1>medssl</h1><p>What is it, where is it seen, which known cases look like it: '
        f'{escape(titles)}.</p></header><div class="ms-notice" role="note">{escape(NOT_FOR_DIAGNOSIS)}</div>{synthetic}'
    )


def limits(minutes: int) -> str:
    """What the page is not for, and what happens to an upload."""
    return f"""<div class="ms-limits"><h3>What this is not for</h3><ul>
<li>{escape(NOT_FOR_DIAGNOSIS)}</li>
<li>It knows only the classes listed for each task. An image of anything else still gets one of them.</li>
<li>The heatmap shows which parts moved the model's answer, not where a disease is.
Cases that look alike may differ in diagnosis.</li>
<li>The figures hold for images like those it was measured on, not for another scanner, stain or hospital.</li>
</ul><p><b>Uploads are not kept.</b> The file's metadata is dropped when it is read; the file and the
pictures made from it are deleted from this server within {minutes} minutes; nothing of it is logged or sent
anywhere.</p></div>"""


def synthetic_note(task: Task) -> str:
    """One line where the task's images were drawn by code, else nothing."""
    return f'<p class="ms-small ms-drawn">{escape(SYNTHETIC)}</p>' if task.synthetic else ""


def verdict(prediction: Prediction, task: Task, thresholds: Thresholds) -> str:
    """The predicted class, and one bar a class; members of the prediction set are marked, with what it promises."""
    level = thresholds.conformal_level
    promise = " ".join(escape(sentence) for sentence in thresholds.promise())
    rows = []
    for label, value in sorted(prediction.probabilities.items(), key=lambda item: -item[1]):
        inside = label in prediction.prediction_set
        rows.append(
            f'<div class="ms-bar{" ms-in" if inside else ""}" data-label="{escape(label)}">'
            f'<span class="ms-name">{escape(pretty(label))}</span>'
            f'<span class="ms-track"><span style="width:{100 * value:.2f}%"></span></span>'
            f'<span class="ms-value">{percent(value)}</span></div>'
        )
    count = len(prediction.prediction_set)
    names = ", ".join(pretty(label) for label in prediction.prediction_set)
    sure = "one class" if count == 1 else f"{count} classes: not sure which"
    return (
        f'<div class="ms-card"><div class="ms-task">{escape(task.title)}</div>{synthetic_note(task)}'
        f'<div class="ms-label" id="predicted-class">{escape(pretty(prediction.label))}'
        f" <span>{percent(prediction.probability)}</span></div>{''.join(rows)}"
        f'<p class="ms-small"><b>● {100 * level:.0f} % prediction set</b> ({sure}): {escape(names)}. '
        f"{promise}</p></div>"
    )


def warning(prediction: Prediction, threshold: float | None) -> str:
    """The plain warning for an unfamiliar image, else nothing."""
    if prediction.familiar is not False:
        return ""
    figure = f" Familiarity {prediction.familiarity:.2f}" if prediction.familiarity is not None else ""
    figure += f", expected at least {threshold:.2f}." if figure and threshold is not None else ""
    return f'<div class="ms-warning" role="alert"><b>{UNFAMILIAR}</b><span>{figure}</span></div>'


def note(said: str) -> str:
    """A remark beside a result; `said` is HTML."""
    return f'<div class="ms-note">{said}</div>'


def case_caption(case: Case) -> str:
    """What stands under a case's picture: label, then similarity and group."""
    return f"{pretty(case.label)}\n{case.score:.2f} · {case.group_id}".rstrip(" ·")


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


def verification(found: Verification) -> str:
    """A heatmap's deletion and insertion beside those of random maps on the same image, and a sentence."""
    rows = ""
    for name in CURVE_METRICS:
        figure = getattr(found, name)
        rows += (
            f"<tr><td>{METRICS[name].title}<br>({'higher' if figure.higher_is_better else 'lower'} is better)</td>"
            f"<td>{figure.value:.3f}</td><td>{figure.random_mean:.3f}<br>"
            f"({figure.random_low:.3f} to {figure.random_high:.3f})</td><td>{100 * figure.beats:.0f} %</td></tr>"
        )
    beats = found.insertion_minus_deletion.beats
    said = "It is better than chance here" if beats >= BEATS_CHANCE else "It is not clearly better than chance here"
    return (
        note(
            f"<b>{said}</b>: it beats {100 * beats:.0f} % of {found.random_maps} random maps. Pixels were deleted and "
            f"inserted, strongest first, and the probability of “{escape(pretty(found.target))}” was watched."
        )
        + '<div class="ms-card ms-figure-box"><table class="ms-figures ms-tight"><thead><tr>'
        "<th>Area under the curve</th><th>This heatmap</th><th>Random maps: mean (lowest to highest)</th>"
        f"<th>Beaten</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def figures(metrics: Mapping, modality: str, backbone: str, coverage: str = "") -> str:
    """The measured figures of a bundle with their 95 % intervals, and what its audit found.

    `coverage` is what `coverage_html` makes of them.
    """
    found = {name: metric for name in FIGURES if is_metric(metric := find_metric(metrics, name))}
    rows = "".join(figure_row(*FIGURES[name], metric) for name, metric in found.items())
    recalls = find_metric(metrics, "per_class_recall") or {}
    rows += "".join(
        figure_row(f"Found among true “{escape(pretty(label))}”", "%", metric)
        for label, metric in recalls.items()
        if is_metric(metric)
    )
    table = (
        f'<table class="ms-figures"><thead><tr><th>Measured on the test split</th><th>Value</th><th>95 % interval</th>'
        f"<th>Images</th></tr></thead><tbody>{rows}</tbody></table>"
        if rows
        else "<p>No figures were measured for this bundle.</p>"
    )
    findings = (metrics.get("audit") or {}).get("findings") or []
    items = "".join(
        f'<li><span class="ms-severity ms-severity-{escape(str(finding.get("severity", "info")))}">'
        f"{escape(str(finding.get('severity', 'info')))}</span> {escape(finding_text(finding))}</li>"
        for finding in findings
    )
    audit = f"<ul>{items}</ul>" if items else "<p>The audit of the data reported nothing.</p>"
    facts = f'<p class="ms-small">Modality: {escape(modality)}. Backbone: {escape(backbone)}.</p>'
    return f'<div class="ms-figure-box">{facts}{table}{coverage}<h4>Audit of the data</h4>{audit}</div>'


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


def figure_row(title: str, unit: str, metric: Mapping) -> str:
    """One line of the table of figures."""

    def text(value: float | None) -> str:
        if value is None:
            return "–"
        return f"{100 * value:.1f} %" if unit == "%" else f"{value:.3f}"

    interval = f"{text(metric.get('low'))} to {text(metric.get('high'))}" if metric.get("low") is not None else "–"
    cells = (title, text(metric["value"]), interval, escape(str(metric.get("n", "–"))))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def for_screen(image: Image.Image) -> Image.Image:
    """The image, at most 1024 pixels on its longer side."""
    small = image.copy()
    small.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    return small


def blend(image: Image.Image, explanation: Explanation, opacity: float) -> Image.Image:
    """The overlay at screen size; the map is only resized, never computed again."""
    small = for_screen(image)
    heatmap = explanation.heatmap
    if small.size != image.size:
        resized = Image.fromarray(heatmap).resize(small.size, Image.Resampling.BILINEAR)
        heatmap = np.clip(np.asarray(resized, np.float32), 0, 1)
    return replace(explanation, heatmap=heatmap).overlay(small, opacity)


def make_examples(bundles: Mapping[str, Bundle], folder: Path) -> list[dict]:
    """One case of each bundle (of its test split, if it has one) as a PNG file: task, path, true label, group."""
    examples = []
    for number, (name, bundle) in enumerate(bundles.items()):
        splits = bundle.cases["split"]
        if not len(splits):
            continue
        case = bundle.cases[splits.index("test") if "test" in splits else 0]
        path = folder / f"example-{number}.png"
        read_image(case["image"]).save(path)
        label = bundle.labels[case["label"]]
        examples.append({"task": name, "path": str(path), "label": label, "group": case["group_id"] or None})
    return examples


def data_uri(image: Image.Image) -> str:
    """A small picture as a PNG data address."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
