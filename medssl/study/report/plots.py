"""Plots of a study's rows: accuracy with intervals, and label-efficiency curves with bands."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medssl.study.kinds import CONTROL, SELF, SUPERVISED
from medssl.study.results import Row
from medssl.study.runs import BY_GROUP
from medssl.study.study import Study

DPI = 110
# Okabe & Ito 2008: told apart by those who see colours differently; the yellow is left out, it is faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C564B")
MARKERS = "osD^vPX*"
LINES = {SELF: "-", SUPERVISED: "--", CONTROL: ":"}
HEADS = (("linear", "linear"), ("kNN", "knn"), ("centroid", "centroid"))


def png(figure: Figure) -> bytes:
    """A figure as PNG bytes, without a date or a program's name in them."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def colors(study: Study) -> dict[str, str]:
    """Each backbone's colour, the same in every plot."""
    return {name: COLORS[index % len(COLORS)] for index, name in enumerate(study.backbones)}


def marker(study: Study, name: str) -> str:
    """A backbone's marker, which tells it apart where colours come round again or are not seen."""
    return MARKERS[list(study.backbones).index(name) % len(MARKERS)]


def absolute(study: Study, task: str, name: str, head: str) -> list[Row]:
    """The accuracies of one head under the split by group, by share."""
    rows = [
        row
        for row in study.rows
        if (row.task, row.backbone, row.head, row.metric) == (task, name, head, "accuracy")
        and row.reference is None
        and row.protocol == BY_GROUP
        and row.value is not None
    ]
    return sorted(rows, key=lambda row: row.share)


def chance(study: Study, task: str) -> float:
    """The accuracy of guessing a class at random."""
    return 1 / len(study.tasks[task].task_labels.names)


def accuracy_plot(study: Study) -> bytes:
    """Accuracy of the three classifiers with 95 % intervals, a panel a task."""
    names, tasks = list(study.backbones), list(study.tasks)
    height = 1.4 + 0.42 * len(names)
    figure = Figure(figsize=(1.5 + 2.9 * len(tasks), height), layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axis, task in zip(axes, tasks, strict=True):
        for offset, (title, head) in enumerate(HEADS):
            for place, name in enumerate(names):
                rows = [row for row in absolute(study, task, name, head) if row.share == 1.0]
                if rows:
                    row = rows[0]
                    bounds = [[row.value - row.low], [row.high - row.value]]
                    axis.errorbar(
                        row.value,
                        place + 0.24 * (offset - 1),
                        xerr=bounds,
                        fmt=MARKERS[offset],
                        markersize=4,
                        capsize=2,
                        color=COLORS[offset],
                        label=title if place == 0 else None,
                    )
        axis.axvline(chance(study, task), color="#888888", linestyle=":", linewidth=1)
        axis.set_title(f"{task} (n = {tested(study, task)})", fontsize=10)
        axis.set_xlabel("accuracy", fontsize=9)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes[0].set_yticks(range(len(names)), [f"{name}\n{study.kinds[name]}" for name in names], fontsize=8)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return png(figure)


def tested(study: Study, task: str) -> int:
    """How many test images a task has."""
    return len(next(iter(study.tasks[task].measured.values())).runs[0].rows)


def label_plot(study: Study, heads: Sequence[tuple[str, str]] = HEADS) -> bytes:
    """Accuracy over the share of training groups, a column a task and a row a head; the bands are 95 % intervals."""
    tasks = list(study.tasks)
    figure = Figure(figsize=(1.2 + 2.9 * len(tasks), 0.9 + 2.5 * len(heads)), layout="constrained")
    axes = figure.subplots(len(heads), len(tasks), squeeze=False, sharex=True)
    for line, (title, head) in zip(axes, heads, strict=True):
        for axis, task in zip(line, tasks, strict=True):
            for name, color in colors(study).items():
                draw_curve(axis, absolute(study, task, name, head), study, name, color)
            axis.axhline(chance(study, task), color="#888888", linestyle=":", linewidth=1)
            axis.set_xscale("log")
            axis.grid(color="#e5e5e5", linewidth=0.6)
            axis.tick_params(labelsize=8)
        line[0].set_ylabel(f"{title}\naccuracy", fontsize=9)
    shares = sorted({row.share for row in study.rows})
    for axis, task in zip(axes[0], tasks, strict=True):
        axis.set_title(f"{task} (n = {tested(study, task)})", fontsize=10)
    for axis in axes[-1]:
        axis.set_xticks(shares, [f"{100 * share:g}" for share in shares])
        axis.set_xticks([], minor=True)
        axis.set_xlabel("% of training groups", fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    columns = min(len(labels), max(1, round(1.25 * len(tasks))))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
    return png(figure)


def draw_curve(axis: Axes, rows: Sequence[Row], study: Study, name: str, color: str) -> None:
    """One backbone's curve with its band."""
    if not rows:
        return
    shares = [row.share for row in rows]
    kind = study.kinds[name]
    axis.fill_between(shares, [row.low for row in rows], [row.high for row in rows], color=color, alpha=0.12, lw=0)
    axis.plot(
        shares,
        [row.value for row in rows],
        color=color,
        linestyle=LINES.get(kind, "-."),
        marker=marker(study, name),
        markersize=4,
        linewidth=1.6,
        label=f"{name} ({kind})",
    )
