"""Where prediction sets hold the true class: by confidence, by class and by set size, since an average hides the hard
part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medssl.metrics.bootstrap import mean_statistic, resample
from medssl.metrics.metric import metric, plain
from medssl.text import markdown

THIRDS = ("least confident third", "middle third", "most confident third")
COVERAGE_HEADER = ("images", "n", "groups", "sets hold the true class", "mean over groups", "mean set size")


def coverage_row(
    name: str, hits: np.ndarray, sizes: np.ndarray, groups: np.ndarray, n_bootstrap: int, seed: int
) -> dict:
    """The coverage of some images: `hits [N]` 0 or 1, set `sizes [N]`, `groups [N]`.

    `coverage` is that of a random image, with its 95 % interval over groups; `group_coverage` the mean of the groups'
    own coverages, that of a random image of a random group.
    """
    if not len(hits):
        return {"name": name, "n": 0, "groups": 0} | dict.fromkeys(
            ("coverage", "low", "high", "group_coverage", "mean_set_size")
        )
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    value, resampled = resample(groups, mean_statistic(hits[:, None]), n_bootstrap, seed)
    found = metric("conformal_coverage", value[0], resampled[:, 0], len(hits), [len(counts)], len(counts))
    return {
        "name": name,
        "n": found["n"],
        "groups": found["groups"],
        "coverage": found["value"],
        "low": found["low"],
        "high": found["high"],
        "group_coverage": plain(np.average(hits, weights=1 / counts[group])),
        "mean_set_size": plain(sizes.mean()),
    }


def coverage_metrics(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    label_names: Sequence[str],
    sets: np.ndarray,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict:
    """Coverage rows `by_confidence` (thirds of the highest probability, with `from` and `to`), `by_class`,
    `by_set_size`: of probabilities `[N, C]`, labels int `[N]`, groups text `[N]`, prediction sets bool `[N, C]`.
    """
    hits = sets[np.arange(len(labels)), labels].astype(np.float64)
    sizes, confidence = sets.sum(axis=1), probabilities.max(axis=1)

    def row(name: str, chosen: np.ndarray) -> dict:
        return coverage_row(name, hits[chosen], sizes[chosen], groups[chosen], n_bootstrap, seed)

    by_confidence = []
    for name, third in zip(THIRDS, np.array_split(np.argsort(confidence, kind="stable"), len(THIRDS)), strict=True):
        ends = {"from": confidence[third].min(), "to": confidence[third].max()} if len(third) else {}
        by_confidence.append(row(name, third) | {end: float(value) for end, value in ends.items()})
    return {
        "by_confidence": by_confidence,
        "by_class": [row(name, labels == index) for index, name in enumerate(label_names)],
        "by_set_size": [
            row("1 class" if size == 1 else f"{size} classes", sizes == size) for size in sorted(set(sizes.tolist()))
        ],
    }


def coverage_cells(row: Mapping) -> tuple[str, ...]:
    """One coverage row as text, in the order of COVERAGE_HEADER."""
    if not row["n"]:
        return (row["name"], "0", "0", "-", "-", "-")
    ends = f" ({row['from']:.2f} to {row['to']:.2f})" if "from" in row else ""
    interval = f" [{number_cell(row['low'])}, {number_cell(row['high'])}]"
    return (
        row["name"] + ends,
        str(row["n"]),
        str(row["groups"]),
        number_cell(row["coverage"]) + interval,
        number_cell(row["group_coverage"]),
        number_cell(row["mean_set_size"]),
    )


def number_cell(number: float | None) -> str:
    """A number with two digits; - where it is unknown."""
    return "-" if number is None else f"{number:.2f}"


def coverage_rows(classification: Mapping) -> list[tuple[str, ...]]:
    """The coverage table of a metrics.json's "classification", a tuple of texts a row in the order of COVERAGE_HEADER;
    empty where it was not measured.
    """
    coverage = classification.get("coverage") or {}
    return [
        coverage_cells(row) for part in ("by_confidence", "by_class", "by_set_size") for row in coverage.get(part, [])
    ]


def format_coverage(classification: Mapping) -> str:
    """The coverage table of a metrics.json's "classification" as Markdown; empty where it was not measured."""
    rows = coverage_rows(classification)
    lines = [COVERAGE_HEADER, ("---",) * len(COVERAGE_HEADER), *rows] if rows else []
    return "\n".join(f"| {' | '.join(map(markdown, cells))} |" for cells in lines)
