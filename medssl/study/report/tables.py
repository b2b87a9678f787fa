"""The tables of a study's report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medssl.audit.audit import Audit
from medssl.audit.findings import INFO, ORDER
from medssl.study.report.document import Table, markdown_table
from medssl.study.results import LEAKAGE_GAP, Row
from medssl.study.runs import BY_GROUP, BY_IMAGE
from medssl.study.study import Study

# What the main table shows, in its order: title, head, metric.
SHOWN = (
    ("linear", "linear", "accuracy"),
    ("kNN", "knn", "accuracy"),
    ("centroid", "centroid", "accuracy"),
    ("P@5", "retrieval", "precision_at_5"),
)
CALIBRATION = (
    ("balanced accuracy", "linear", "balanced_accuracy"),
    ("macro F1", "linear", "macro_f1"),
    ("AUROC", "linear", "auroc"),
    ("ECE", "linear", "ece"),
    ("NLL", "linear", "nll"),
    ("set coverage (aim 0.90)", "linear", "conformal_coverage"),
    ("set size", "linear", "mean_set_size"),
)
PERFECT = 0.9995  # shows as 1.000


def number(value: float | None, sign: str = "") -> str:
    """A figure as text, "-" where it is unknown."""
    return "-" if value is None else f"{value:{sign}.3f}"


def cell(row: Row | None, sign: str = "") -> str:
    """A figure with its interval."""
    if row is None:
        return "-"
    return f"{number(row.value, sign)} [{number(row.low, sign)}, {number(row.high, sign)}]"


def by_pair(rows: Sequence[Row], title: Callable[[Row], str]) -> dict[tuple[str, str], dict[tuple[str, str], Row]]:
    """Rows by (task, title), then by (head, metric)."""
    pairs: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for row in rows:
        pairs.setdefault((row.task, title(row)), {})[row.head, row.metric] = row
    return pairs


def figures_table(
    rows: Sequence[Row],
    title: Callable[[Row], str] = lambda row: row.backbone,
    sign: str = "",
    shown: Sequence[tuple[str, str, str]] = SHOWN,
) -> Table:
    """One line for each task and title, one column for each of `shown`."""
    lines = [
        [task, name, *(cell(measured.get((head, metric)), sign) for _, head, metric in shown)]
        for (task, name), measured in by_pair(rows, title).items()
    ]
    return Table(["task", "backbone", *(name for name, _, _ in shown)], lines)


def full_rows(study: Study) -> list[Row]:
    """The figures at full data under the split by group."""
    return [row for row in study.rows if (row.reference, row.protocol, row.share) == (None, BY_GROUP, 1.0)]


def difference_rows(study: Study) -> list[Row]:
    """The paired differences at full data."""
    return [row for row in study.rows if row.reference is not None and row.share == 1.0]


def versus(row: Row) -> str:
    """`a - b`."""
    return f"{row.backbone} - {row.reference}"


def main_table(study: Study) -> Table:
    """Tasks x backbones with 95 % intervals."""
    return figures_table(full_rows(study))


def differences(study: Study) -> Table | None:
    """Every pair's differences with 95 % intervals; None where no pair was compared."""
    rows = difference_rows(study)
    return figures_table(rows, versus, "+") if rows else None


def printed(study: Study) -> str:
    """The main table and the paired differences as Markdown."""
    paired = differences(study)
    parts = [markdown_table(main_table(study))]
    return "\n\n".join([*parts, "Paired differences", markdown_table(paired)] if paired else parts)


def findings_text(audit: Audit | None) -> str:
    """The kinds of what the audit found, the worst first, without mere information."""
    if audit is None:
        return "not audited"
    kinds = dict.fromkeys(f"{item.kind} ({item.severity})" for item in audit.findings if item.severity != INFO)
    return "; ".join(kinds) or "nothing beyond information"


def scores_with_audit(study: Study) -> Table:
    """The main table with each backbone's kind and the audit's findings beside the scores."""
    table = main_table(study)
    rows = []
    for task, backbone, *cells in table.rows:
        rows.append([task, backbone, *cells, study.kinds[backbone], findings_text(study.tasks[task].audit)])
    return Table([*table.head, "kind", "audit of the task"], rows)


def leakage_table(study: Study) -> Table:
    """The split by group beside the paper's split by image, linear head and kNN."""
    by_backbone: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for row in study.rows:
        if row.reference is None and row.share == 1.0 and row.metric == "accuracy":
            by_backbone.setdefault((row.task, row.backbone), {})[row.head, row.protocol] = row
    lines = []
    for names, rows in by_backbone.items():
        cells = [
            cell(rows.get((head, protocol)), "+" if protocol == LEAKAGE_GAP else "")
            for head in ("linear", "knn")
            for protocol in (BY_GROUP, BY_IMAGE, LEAKAGE_GAP)
        ]
        lines.append([*names, *cells])
    titles = ("groups apart", "images at random", "flattered by")
    return Table(["task", "backbone", *(f"{head}, {title}" for head in ("linear", "kNN") for title in titles)], lines)


def label_table(study: Study, head: str = "linear") -> Table:
    """Accuracy at each share of the training groups: mean over draws, interval, spread over draws."""
    rows = [
        row
        for row in study.rows
        if row.reference is None and row.protocol == BY_GROUP and (row.head, row.metric) == (head, "accuracy")
    ]
    shares = sorted({row.share for row in rows})
    by_backbone: dict[tuple[str, str], dict[float, Row]] = {}
    for row in rows:
        by_backbone.setdefault((row.task, row.backbone), {})[row.share] = row
    lines = []
    for names, of_share in by_backbone.items():
        cells = []
        for share in shares:
            row = of_share[share]
            spread = "" if row.draw_sd is None else f", sd {row.draw_sd:.3f}"
            cells.append(f"{cell(row)}{spread}, {row.train_images:.0f} images")
        lines.append([*names, *cells])
    return Table(["task", "backbone", *(f"{share:.0%}" for share in shares)], lines)


def comparison_table(rows: Sequence[Row]) -> Table:
    """Paired differences with their p-values as they are and adjusted."""
    lines = [
        [row.task, versus(row), row.head, f"{row.share:.0%}", cell(row, "+"), p_text(row.p), p_text(row.p_holm)]
        for row in rows
    ]
    return Table(["task", "pair", "head", "labels", "accuracy, difference", "p", "p, Holm"], lines)


def p_text(p: float | None) -> str:
    """A p-value as text."""
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def audit_table(study: Study) -> Table | None:
    """Every finding of every task; None where nothing was audited."""
    rows = [
        [task, finding.severity, finding.kind, str(finding.count), finding.message]
        for task, about in study.tasks.items()
        for finding in (sorted(about.audit.findings, key=lambda each: ORDER[each.severity]) if about.audit else ())
    ]
    audited = any(about.audit is not None for about in study.tasks.values())
    return Table(["task", "severity", "finding", "count", "what"], rows) if audited else None


def perfect_rows(study: Study) -> list[Row]:
    """Every figure of accuracy that shows as 1.000."""
    perfect = []
    for row in study.rows:
        absolute = row.reference is None and row.protocol != LEAKAGE_GAP and row.value is not None
        if absolute and row.metric in ("accuracy", "balanced_accuracy") and row.value >= PERFECT:
            perfect.append(row)
    return perfect


def perfect_table(study: Study) -> Table:
    """Figures of 1.000, each with its interval and all that the audit found in the task."""
    lines = [
        [
            row.task,
            row.backbone,
            f"{row.head}, {row.metric.replace('_', ' ')}, split by {row.protocol}, {row.share:.0%} of the labels",
            f"{cell(row)}, {row.n} images of {row.groups} groups",
            findings_text(study.tasks[row.task].audit),
        ]
        for row in perfect_rows(study)
    ]
    return Table(["task", "backbone", "figure", "value [95 % interval]", "audit of the task"], lines)


def data_table(study: Study) -> Table:
    """What each task's data is."""
    head = ["task", "data", "classes", "train: images (groups)", "val", "test", "test images with a group in train"]
    return Table(head, [[name, *map(str, facts.values())] for name, facts in study.data.items()])


def backbone_table(study: Study) -> Table:
    """What each backbone is, and the seconds it took."""
    head = ["name", "kind", "id", "revision", "dimension", "input", "pooling", "precision", "embedding, s", "heads, s"]
    rows = []
    for name, facts in study.backbones.items():
        measured = [task.measured[name] for task in study.tasks.values() if name in task.measured]
        seconds = [sum(getattr(item, key) for item in measured) for key in ("embed_seconds", "fit_seconds")]
        order = ("kind", "id", "revision", "dimension", "input", "pooling", "precision")
        rows.append([name, *(str(facts[key]) for key in order), *(f"{value:.1f}" for value in seconds)])
    return Table(head, rows)
