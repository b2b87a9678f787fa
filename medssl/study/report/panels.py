"""Plots of a study's runs, a file a task: reliability, confusion, and the map of the embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from medssl.metrics.metric import ECE_BINS
from medssl.study.probes import LINEAR, Outcome
from medssl.study.report.document import LiveMap, MapPanel
from medssl.study.report.plots import COLORS, png
from medssl.study.runs import Measured
from medssl.study.study import StudiedTask, Study

ACROSS = 5
MAP_SIDE, MARGIN = 300, 8  # pixels of a map in HTML


def grid(
    study: Study, task: str, side: float, below: float, draw: Callable[[Axes, Measured], None], title: str
) -> Figure:
    """One panel of `side` inches a backbone, at most five in a row, with `below` inches for its words."""
    measured = study.tasks[task].measured
    columns = min(ACROSS, len(measured))
    lines = -(-len(measured) // columns)
    figure = Figure(figsize=(side * columns + 0.6, (side + below) * lines + 0.4), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for position, (name, each) in enumerate(measured.items()):
        axis = axes[position]
        axis.set_title(f"{name}\n{study.kinds[name]}", fontsize=9)
        draw(axis, each)
        if position % columns:
            axis.set_ylabel("")
            axis.tick_params(labelleft=False)
    for axis in axes[len(measured) :]:
        axis.set_axis_off()
    figure.suptitle(title, fontsize=11)
    return figure


def linear_outcome(measured: Measured) -> tuple[Outcome, np.ndarray]:
    """The linear head at full data and its test rows."""
    full = measured.runs[0]
    return full.outcome(LINEAR, "accuracy"), full.rows


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of images of each bin that holds any, of probabilities `[N, C]`.

    The bins are those of the expected calibration error: (0, 1/10] to (9/10, 1].
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    counts = np.bincount(bins, minlength=ECE_BINS)
    held = np.flatnonzero(counts)
    sums = [np.bincount(bins, weights=values, minlength=ECE_BINS)[held] for values in (confidence, correct)]
    return sums[0] / counts[held], sums[1] / counts[held], counts[held]


def reliability_plot(study: Study, task: str) -> bytes:
    """Accuracy over confidence of the linear head; a dot's area is its share of the images."""
    labels = study.tasks[task].task_labels.labels

    def draw(axis: Axes, measured: Measured) -> None:
        outcome, rows = linear_outcome(measured)
        confidence, accuracy, counts = reliability(outcome.probabilities, labels[rows])
        axis.plot([0, 1], [0, 1], color="#888888", linestyle=":", linewidth=1)
        axis.vlines(confidence, confidence, accuracy, color=COLORS[1], linewidth=1)
        areas = 12 + 250 * counts / counts.sum()
        axis.scatter(confidence, accuracy, s=areas, color=COLORS[0], alpha=0.8, linewidth=0, clip_on=False, zorder=3)
        axis.set(xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal")
        axis.set_xlabel("confidence", fontsize=8)
        axis.set_ylabel("accuracy", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(color="#e5e5e5", linewidth=0.6)

    return png(grid(study, task, 2.3, 0.7, draw, f"{task}: reliability of the linear head on test"))


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Counts `[C, C]`: rows true, columns predicted."""
    table = np.zeros((classes, classes), int)
    np.add.at(table, (labels, predicted), 1)
    return table


def confusion_plot(study: Study, task: str) -> bytes:
    """Confusion matrices of the linear head: the number of images, coloured by the share of the true class."""
    task_labels = study.tasks[task].task_labels
    short = [shorten(name) for name in task_labels.names]

    def draw(axis: Axes, measured: Measured) -> None:
        outcome, rows = linear_outcome(measured)
        table = confusion(outcome.predicted, task_labels.labels[rows], len(short))
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(table.shape):
            color = "white" if shares[row, column] > 0.55 else "black"
            axis.text(column, row, str(table[row, column]), ha="center", va="center", fontsize=8, color=color)
        axis.set_xticks(range(len(short)), short, rotation=45, ha="right", fontsize=7)
        axis.set_yticks(range(len(short)), short, fontsize=7)
        axis.set_xlabel("predicted", fontsize=8)
        axis.set_ylabel("true", fontsize=8)

    return png(grid(study, task, 2.5, 1.5, draw, f"{task}: confusion of the linear head on test, images"))


def shorten(name: str, most: int = 20) -> str:
    """A name that fits beside an axis."""
    text = name.replace("_", " ")
    return text if len(text) <= most else text[: most - 1] + "…"


def colorings(task: StudiedTask) -> list[tuple[str, np.ndarray, list[str]]]:
    """What the map is coloured by: (title, a number an image [N], the numbers' names)."""
    by_label = [("label", task.task_labels.labels, task.task_labels.names)]
    names, numbers, counts = np.unique(task.sources, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    most = len(COLORS)
    largest = order if len(order) <= most else order[: most - 1]
    numbered = np.full(len(names), len(largest))
    numbered[largest] = np.arange(len(largest))
    titles = [str(names[index]) or "no source named" for index in largest]
    titles += [] if len(largest) == len(names) else ["other sources"]
    return [*by_label, ("source", numbered[numbers], titles)]


def map_plot(study: Study, task: str) -> bytes:
    """The embeddings in two dimensions, a column a backbone, coloured by label above and by source below."""
    about = study.tasks[task]
    colors = colorings(about)
    columns = len(about.measured)
    figure = Figure(figsize=(2.4 * columns + 2.2, 5.4), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for axis, (name, _) in zip(axes[0], about.measured.items(), strict=True):
        axis.set_title(f"{name}\n{study.kinds[name]}", fontsize=9)
    for line, (title, numbers, names) in zip(axes, colors, strict=True):
        for axis, measured in zip(line, about.measured.values(), strict=True):
            layout = measured.map
            kinds = numbers[layout.rows]
            colors = [COLORS[kind % len(COLORS)] for kind in kinds]
            axis.scatter(*layout.points.T, s=4, c=colors, alpha=0.6, linewidth=0)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"PC 1 ({layout.explained[0]:.0%})", fontsize=7)
            axis.set_ylabel(f"PC 2 ({layout.explained[1]:.0%})", fontsize=7)
        marks = [
            Line2D([], [], marker="o", linestyle="", color=COLORS[index % len(COLORS)], label=shorten(text, 28))
            for index, text in enumerate(names)
        ]
        line[-1].legend(
            handles=marks, title=title, fontsize=7, title_fontsize=8, loc="upper left", bbox_to_anchor=(1, 1)
        )
    figure.suptitle(f"{task}: embeddings by PCA, coloured by label and by source", fontsize=11)
    return png(figure)


def live_map(study: Study, task: str, name: str, caption: str) -> LiveMap:
    """The same map with a dot an image that says its label, source and file when it is pointed at."""
    about = study.tasks[task]
    chosen = colorings(about)
    files = about.dataset["file_name"][:] if "file_name" in about.dataset.column_names else None
    panels = []
    for backbone, measured in about.measured.items():
        layout = measured.map
        low, high = layout.points.min(0), layout.points.max(0)
        places = MARGIN + (layout.points - low) / np.maximum(high - low, 1e-12) * (MAP_SIDE - 2 * MARGIN)
        dots = []
        for row, (x, y) in zip(layout.rows.tolist(), places.tolist(), strict=True):
            words = [names[numbers[row]] for _, numbers, names in chosen] + ([str(files[row])] if files else [])
            kinds = [int(numbers[row]) % len(COLORS) for _, numbers, _ in chosen]
            dots.append((round(x, 1), round(MAP_SIDE - y, 1), kinds, " · ".join(words)))
        axes = ", ".join(f"PC {number} {share:.0%}" for number, share in enumerate(layout.explained, 1))
        panels.append(MapPanel(f"{backbone} ({study.kinds[backbone]}), {axes}", dots))
    titled = [(title, names) for title, _, names in chosen]
    return LiveMap(name, caption, map_plot(study, task), panels, titled, COLORS, MAP_SIDE)
