"""Runs into rows: figures with intervals, spreads over draws, paired differences, and the leakage gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medssl.metrics.bootstrap import interval, mean_statistic, resample
from medssl.metrics.classification import classification_metrics
from medssl.metrics.metric import METRICS, metric, plain
from medssl.metrics.paired import holm, paired_differences
from medssl.study.probes import CLASSIFIERS, LINEAR
from medssl.study.results import LEAKAGE_GAP, Row
from medssl.study.runs import BY_GROUP, BY_IMAGE, Run

BALANCED = "balanced_accuracy"
# A p-value of m comparisons cannot go below 2 m / resamples; differences get this many times the resamples.
FINER = 20
NUMBERS = ("value", "low", "high", "n", "groups")


@dataclass(frozen=True)
class TaskLabels:
    """What a task's images are: `labels [N]` int, `groups [N]` text, and the labels' names in order."""

    labels: np.ndarray
    groups: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Scores:
    """The scores of one head under one metric, over all draws of a setting, with the test images they are of."""

    scores: np.ndarray
    rows: np.ndarray
    draws: list[np.ndarray]
    runs: list[Run]
    settings: list[str]


def collect(runs: Sequence[Run], head: str, name: str) -> Scores | None:
    """The scores of runs that differ in their draw alone; None where the head was not measured.

    Draws on the same test images become their mean an image; draws with test images of their own are laid end to end.
    """
    outcomes = [(run, run.outcome(head, name)) for run in runs]
    measured = [(run, outcome) for run, outcome in outcomes if outcome is not None]
    if not measured:
        return None
    draws = [outcome.scores for _, outcome in measured]
    rows = [run.rows for run, _ in measured]
    same = all(np.array_equal(rows[0], other) for other in rows)
    settings = [outcome.setting for _, outcome in measured]
    used = [run for run, _ in measured]
    if same:
        return Scores(np.mean(draws, axis=0), rows[0], draws, used, settings)
    return Scores(np.concatenate(draws), np.concatenate(rows), draws, used, settings)


def score_figure(
    name: str, scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, n_bootstrap: int = 1000, seed: int = 0
) -> tuple[dict, np.ndarray]:
    """A metric of scores `[N]` with its interval, as `evaluation.metric` gives it, and its resamples [R]."""
    known = np.isfinite(scores)
    if not known.any():
        return metric(name, np.nan, np.empty(0), 0, [], 0), np.full(n_bootstrap, np.nan)
    labels, groups = labels[known], groups[known]
    by_class = name == BALANCED
    statistic = mean_statistic(scores[known, None], labels if by_class else None)
    value, resampled = resample(groups, statistic, n_bootstrap, seed)
    total = len(set(groups))
    parts = [len(set(groups[labels == label])) for label in np.unique(labels)] if by_class else [total]
    return metric(name, value[0], resampled[:, 0], int(known.sum()), parts, total), resampled[:, 0]


def draw_values(name: str, measured: Scores, task_labels: TaskLabels) -> list[float]:
    """The metric of each draw alone."""
    values = []
    for scores, run in zip(measured.draws, measured.runs, strict=True):
        labels = task_labels.labels[run.rows] if name == BALANCED else None
        known = np.isfinite(scores)
        if known.any():
            statistic = mean_statistic(scores[known, None], None if labels is None else labels[known])
            values.append(float(statistic(np.ones((1, int(known.sum()))))[0, 0]))
    return values


def summarize(settings: Sequence[str]) -> str:
    """What validation chose in each draw, in few words: `C=0.1`, or `C=0.1 x3, C=1 x2`."""
    counts = {setting: settings.count(setting) for setting in dict.fromkeys(settings)}
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{name} x{n}" for name, n in counts.items())


def score_row(
    base: Row, name: str, measured: Scores, task_labels: TaskLabels, n_bootstrap: int
) -> tuple[Row, np.ndarray]:
    """The row of one head and metric over all draws, and its resamples [R]; `base` has task, backbone and head."""
    figure, resampled = score_figure(
        name,
        measured.scores,
        task_labels.labels[measured.rows],
        task_labels.groups[measured.rows],
        n_bootstrap,
        base.seed,
    )
    values = draw_values(name, measured, task_labels)
    several = len(values) > 1
    first = measured.runs[0]
    row = replace(
        base,
        metric=name,
        **{key: figure[key] for key in NUMBERS},
        setting=summarize(measured.settings),
        protocol=first.protocol,
        share=first.share,
        draws=len(measured.draws),
        draw_sd=float(np.std(values, ddof=1)) if several else None,
        draw_low=min(values) if several else None,
        draw_high=max(values) if several else None,
        train_images=float(np.mean([run.train_images for run in measured.runs])),
        train_groups=float(np.mean([run.train_groups for run in measured.runs])),
    )
    known = measured.rows[np.isfinite(measured.scores)]
    return replace(row, n=len(np.unique(known))), resampled


def settings_of(runs: Sequence[Run]) -> dict[tuple[str, float], list[Run]]:
    """Runs by (protocol, share), in the order in which they come."""
    by_setting: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        by_setting.setdefault((run.protocol, run.share), []).append(run)
    return by_setting


def heads_and_metrics(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Every head with every metric that the first run has of it."""
    return [(outcome.head, name) for outcome in runs[0].outcomes for name in outcome.metrics]


def backbone_rows(base: Row, runs: Sequence[Run], task_labels: TaskLabels, n_bootstrap: int) -> list[Row]:
    """All figures of one backbone on one task; `base` has the task, the backbone, its kind and the seed."""
    rows, resamples = [], {}
    for (protocol, share), some in settings_of(runs).items():
        for head, name in heads_and_metrics(some):
            measured = collect(some, head, name)
            row, resampled = score_row(replace(base, head=head), name, measured, task_labels, n_bootstrap)
            rows.append(row)
            if share == 1.0:
                resamples[protocol, head, name] = row, resampled
    full = next(run for run in runs if (run.protocol, run.share) == (BY_GROUP, 1.0))
    return [*rows, *probability_rows(base, full, task_labels, n_bootstrap), *leakage_gap_rows(resamples)]


def probability_rows(base: Row, run: Run, task_labels: TaskLabels, n_bootstrap: int) -> list[Row]:
    """What `classification_metrics` says of the linear head beyond its accuracies, at full data."""
    outcome = run.outcome(LINEAR, "accuracy")
    labels, groups = task_labels.labels[run.rows], task_labels.groups[run.rows]
    figures = classification_metrics(
        outcome.probabilities, labels, groups, task_labels.names, outcome.sets, n_bootstrap, base.seed
    )
    facts = {"setting": outcome.setting, "train_images": run.train_images, "train_groups": run.train_groups}
    return [
        replace(base, head=LINEAR, metric=name, **{key: figure[key] for key in NUMBERS}, **facts)
        for name, figure in figures.items()
        if name in METRICS and name not in outcome.metrics
    ]


def leakage_gap_rows(resamples: Mapping[tuple[str, str, str], tuple[Row, np.ndarray]]) -> list[Row]:
    """The split by image minus the split by group, each head and metric.

    The test images differ, so the two are resampled one beside the other, not in pairs.
    """
    rows = []
    for (protocol, head, name), (by_image, theirs) in resamples.items():
        strict = resamples.get((BY_GROUP, head, name))
        if protocol != BY_IMAGE or strict is None or by_image.value is None or strict[0].value is None:
            continue
        row, ours = strict
        # Resample by resample they would share their random numbers; backwards they do not.
        difference, gaps = by_image.value - row.value, theirs - ours[::-1]
        low, high = interval(difference, gaps, min(row.groups, by_image.groups), None)
        none = {"draw_sd": None, "draw_low": None, "draw_high": None, "setting": ""}
        rows.append(
            replace(by_image, protocol=LEAKAGE_GAP, value=difference, low=plain(low), high=plain(high), n=row.n, **none)
        )
    return rows


def difference_rows(
    task: str,
    runs: Mapping[str, Sequence[Run]],
    pairs: Sequence[tuple[str, str]],
    kinds: Mapping[str, str],
    task_labels: TaskLabels,
    n_bootstrap: int,
    seed: int,
) -> list[Row]:
    """For each pair of backbones the first minus the second on one task: at full data every mean over images, at
    smaller shares the accuracy of the classifiers. p-values are not adjusted yet, see `adjust`.
    """
    names = list(runs)
    rows = []
    by_setting = {name: settings_of(some) for name, some in runs.items()}
    for (protocol, share), first in by_setting[names[0]].items() if pairs else ():
        if protocol != BY_GROUP:
            continue
        for head, name in heads_and_metrics(first):
            if share < 1 and (name != "accuracy" or head not in CLASSIFIERS):
                continue
            measured = [collect(by_setting[backbone][protocol, share], head, name) for backbone in names]
            tested = measured[0].rows
            differences = paired_differences(
                np.column_stack([item.scores for item in measured]),
                [(names.index(a), names.index(b)) for a, b in pairs],
                task_labels.groups[tested],
                task_labels.labels[tested] if name == BALANCED else None,
                n_bootstrap * FINER,
                seed,
            )
            for (a, b), figure in zip(pairs, differences, strict=True):
                own = measured[names.index(a)]
                rows.append(
                    Row(
                        task,
                        a,
                        head,
                        name,
                        *(figure[key] for key in NUMBERS),
                        seed,
                        summarize(own.settings),
                        reference=b,
                        kind=kinds.get(a),
                        share=share,
                        draws=len(own.draws),
                        p=figure["p"],
                    )
                )
    return rows


def adjust(rows: Sequence[Row]) -> list[Row]:
    """Rows with p-values adjusted by Holm over all comparisons of the same metric at the same share of labels.

    For that the three precisions of retrieval are three metrics; tasks, pairs of backbones and heads are counted
    together.
    """
    families: dict[tuple[str, float], list[int]] = {}
    for index, row in enumerate(rows):
        if row.reference is not None and row.p is not None:
            families.setdefault((row.metric, row.share), []).append(index)
    adjusted = list(rows)
    for members in families.values():
        for index, p in zip(members, holm([rows[member].p for member in members]), strict=True):
            adjusted[index] = replace(rows[index], p_holm=p, comparisons=len(members))
    return adjusted
