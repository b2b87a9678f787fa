"""A study: the same tasks and splits across several backbones, each figure and each paired difference on test."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from transformers import AutoModel

from medssl.backbones import Backbone, shared_backbone
from medssl.bootstrap import Statistic, interval, resample
from medssl.data import SPLITS, load_data, split_data
from medssl.embeddings import embed
from medssl.errors import BackboneError, DataError
from medssl.evaluation import check_groups, mean_known, metric, plain, ratio, weighted_means
from medssl.measure import part_of
from medssl.probes import Outcome, score_heads
from medssl.training import Part

RANDOM = "random:"
# What a table shows, in its order: title, head, metric.
SHOWN = (
    ("linear", "linear", "accuracy"),
    ("kNN", "knn", "accuracy"),
    ("centroid", "centroid", "accuracy"),
    ("P@5", "retrieval", "precision_at_5"),
)


@dataclass(frozen=True)
class Row:
    """One figure on test; with a `reference` it is the paired difference, `backbone` minus `reference`."""

    task: str
    backbone: str
    head: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    groups: int
    seed: int
    setting: str
    reference: str | None = None


SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("task", "backbone", "head", "metric")]
    + [(name, pa.float64()) for name in ("value", "low", "high")]
    + [(name, pa.int64()) for name in ("n", "groups", "seed")]
    + [(name, pa.string()) for name in ("setting", "reference")]
)


def random_twin(source: str | Path, seed: int = 0) -> Backbone:
    """A backbone's architecture and preprocessing with freshly initialised weights: what training is worth."""
    trained = shared_backbone(str(source))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(copy.deepcopy(trained.model.config))
    return Backbone(
        model,
        id=f"{RANDOM}{trained.id}",
        revision=f"{RANDOM}seed={seed}:{trained.revision}",
        preprocess=trained.preprocess,
        # bf16 blurs untrained embeddings more than trained ones, because images differ less in them.
        precision="fp32",
    )


def open_backbone(source: str | Path | Backbone, seed: int) -> Backbone:
    """A backbone from a registry name, a Hub id or a folder; "random:" before it asks for its random twin."""
    if isinstance(source, Backbone):
        return source
    text = str(source)
    return random_twin(text.removeprefix(RANDOM), seed) if text.startswith(RANDOM) else shared_backbone(text)


def mean_statistic(scores: np.ndarray, labels: np.ndarray | None) -> Statistic:
    """Weights `[R, N]` -> means `[R, M]` of scores `[N, M]`; with labels `[N]`, the mean of the classes' means."""
    if labels is None:
        return lambda weights: weighted_means(weights, scores)
    true = (labels[:, None] == np.unique(labels)).astype(np.float64)

    def statistic(weights: np.ndarray) -> np.ndarray:
        support = weights @ true
        return np.column_stack([mean_known(ratio(weights @ (true * column[:, None]), support)) for column in scores.T])

    return statistic


def absolute_figure(outcome: Outcome, name: str, test: Part, n_bootstrap: int = 1000, seed: int = 0) -> dict:
    """A metric of an outcome with its interval, as `evaluation.metric` gives it."""
    known = np.isfinite(outcome.scores)
    if not known.any():
        return metric(name, np.nan, np.empty(0), 0, [], 0)
    labels, groups = test.labels[known], test.groups[known]
    by_class = name == "balanced_accuracy"
    statistic = mean_statistic(outcome.scores[known, None], labels if by_class else None)
    value, resampled = resample(groups, statistic, n_bootstrap, seed)
    total = len(set(groups))
    parts = [len(set(groups[labels == label])) for label in np.unique(labels)] if by_class else [total]
    return metric(name, value[0], resampled[:, 0], int(known.sum()), parts, total)


def paired_difference(
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    groups: Sequence[str],
    labels: np.ndarray | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict:
    """Mean of scores `[N]` of a minus that of b, on the same images and the same resamples of their groups.

    With labels `[N]` the means are those over classes (balanced accuracy). Images that either leaves unknown are left
    out. Two that agree on every image get an interval of no width. Raises DataError.
    """
    scores = np.column_stack([np.asarray(scores_a, np.float64), np.asarray(scores_b, np.float64)])
    check_groups(len(scores), groups)
    known = np.isfinite(scores).all(axis=1)
    if not known.any():
        return {"value": None, "low": None, "high": None, "n": 0, "groups": 0}
    kept = np.asarray(groups).astype(str)[known]
    statistic = mean_statistic(scores[known], None if labels is None else np.asarray(labels)[known])
    value, resampled = resample(kept, statistic, n_bootstrap, seed)
    total = len(set(kept))
    difference = float(value[0] - value[1])
    low, high = interval(difference, resampled[:, 0] - resampled[:, 1], total, None)
    return {"value": difference, "low": plain(low), "high": plain(high), "n": len(kept), "groups": total}


def figures(
    task: str,
    backbone: str,
    outcomes: Sequence[Outcome],
    others: Mapping[str, Sequence[Outcome]],
    test: Part,
    n_bootstrap: int,
    seed: int,
) -> list[Row]:
    """All rows of one backbone on one task: its figures, and its differences from the other backbones' outcomes."""
    rows = []
    for index, outcome in enumerate(outcomes):
        for name in outcome.metrics:
            found: dict[str | None, dict] = {None: absolute_figure(outcome, name, test, n_bootstrap, seed)}
            labels = test.labels if name == "balanced_accuracy" else None
            for reference, theirs in others.items():
                found[reference] = paired_difference(
                    outcome.scores, theirs[index].scores, test.groups, labels, n_bootstrap, seed
                )
            for reference, figure in found.items():
                numbers = [figure[key] for key in ("value", "low", "high", "n", "groups")]
                rows.append(
                    Row(task, backbone, outcome.head, name, *numbers, seed, outcome.setting, reference=reference)
                )
    return rows


def public_id(name: str) -> str:
    """A backbone's id without the folders above it, which are nobody else's business."""
    place = Path(name.removeprefix(RANDOM))
    kept = place.name if place.is_absolute() else str(place)
    return RANDOM + kept if name.startswith(RANDOM) else kept


def describe_data(dataset: Dataset, source: str | Path) -> dict:
    """Where a task's data comes from, its images and groups a split, and test images whose group is in train too."""
    splits, groups = np.asarray(dataset["split"][:]), np.asarray(dataset["group_id"][:])
    counts = {name: f"{(splits == name).sum()} ({len(set(groups[splits == name]))})" for name in SPLITS}
    shared = int(np.isin(groups[splits == "test"], groups[splits == "train"]).sum())
    place = Path(source).resolve().name if Path(source).is_dir() else str(source)
    return {"data": place, "classes": len(dataset.features["label"].names), **counts, "shared": shared}


@dataclass(frozen=True)
class Study:
    """The rows, and what they were measured with: backbones by name, data by task, seed, bootstrap resamples."""

    rows: list[Row]
    backbones: dict[str, dict]
    data: dict[str, dict]
    seed: int
    resamples: int

    def table(self) -> str:
        """Tasks x backbones as Markdown, with 95 % intervals."""
        return markdown([row for row in self.rows if row.reference is None], lambda row: row.backbone, "")

    def differences(self) -> str:
        """Every backbone minus its reference as Markdown, with 95 % intervals; "" where none was asked for."""
        rows = [row for row in self.rows if row.reference is not None]
        return markdown(rows, lambda row: f"{row.backbone} - {row.reference}", "+") if rows else ""

    def report(self) -> str:
        """Both tables with what they were measured on and with, as Markdown."""
        about = [f"| {name} | {' | '.join(map(str, facts.values()))} |" for name, facts in self.data.items()]
        models = [f"| {name} | {' | '.join(map(str, facts.values()))} |" for name, facts in self.backbones.items()]
        parts = [
            "# Study",
            f"Test split, seed {self.seed}; [low, high] is the 95 % interval of {self.resamples} bootstrap resamples "
            "of whole groups. Linear, kNN and centroid: accuracy; P@5: share of the 5 most similar training cases "
            "with the image's label. C of the linear head and k of kNN were chosen on validation. Balanced "
            "accuracy, and what was chosen, are in results.parquet. Intervals hold the test images to be a sample; "
            "that training could have gone otherwise is not in them.",
            self.table(),
        ]
        if self.differences():
            parts += ["## Paired differences", "Same images, same resamples for both.", self.differences()]
        parts += [
            "## Data",
            "| task | data | classes | train: images (groups) | val | test | test images with a group in train |\n"
            "| --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(about),
            "## Backbones",
            "| name | id | revision | dimension | pooling | precision |\n| --- | --- | --- | --- | --- | --- |\n"
            + "\n".join(models),
        ]
        return "\n\n".join(parts) + "\n"

    def save(self, out: str | Path) -> None:
        """Write results.parquet and report.md into a folder; each appears whole. Raises DataError."""
        out = Path(out)
        table = pa.Table.from_pylist([asdict(row) for row in self.rows], schema=SCHEMA)
        writers: dict[str, Callable[[Path], object]] = {
            "results.parquet": lambda path: pq.write_table(table, path),
            "report.md": lambda path: path.write_text(self.report(), "utf-8"),
        }
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, write in writers.items():
                beside = out / f".{name}.{os.getpid()}.tmp"
                write(beside)
                beside.replace(out / name)
        except OSError as error:
            raise DataError(f"{out} cannot be written: {error.strerror or error}. Give a folder that can.") from error


def markdown(rows: Sequence[Row], title: Callable[[Row], str], sign: str) -> str:
    """Rows of figures as one Markdown line for each task and title."""

    def cell(row: Row) -> str:
        numbers = [f"{number:{sign}.3f}" if number is not None else "-" for number in (row.value, row.low, row.high)]
        return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"

    lines: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    for row in rows:
        lines.setdefault((row.task, title(row)), {})[row.head, row.metric] = row
    head = ["task", "backbone", *(name for name, _, _ in SHOWN)]
    table = [f"| {' | '.join(head)} |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for names, found in lines.items():
        table.append(f"| {' | '.join([*names, *(cell(found[key, value]) for _, key, value in SHOWN)])} |")
    return "\n".join(table)


def compare(
    backbones: Mapping[str, str | Path | Backbone],
    data: Mapping[str, str | Path],
    against: Sequence[str] = (),
    pooling: str | None = None,
    seed: int = 0,
    n_bootstrap: int = 1000,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Study:
    """Measure every backbone (name -> registry name, Hub id, folder or Backbone) on every task (name -> data).

    `against` names the backbones that all others are compared with. Backbones are opened one after the other.
    Raises DataError, BackboneError, ImageError.
    """
    for kind, given in (("backbone", backbones), ("task", data)):
        if not given:
            raise DataError(f"A study needs at least one {kind} and none was given. Name one or more.")
    unknown = [name for name in against if name not in backbones]
    if unknown:
        raise BackboneError(
            f"The reference {', '.join(unknown)} is none of the backbones compared. Allowed: {', '.join(backbones)}."
        )
    splits = {task: split_data(load_data(source), seed=seed) for task, source in data.items()}
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    tests: dict[str, Part] = {}
    facts: dict[str, dict] = {}
    for name, source in backbones.items():
        backbone = open_backbone(source, seed)
        pooled = pooling or backbone.default_pooling
        facts[name] = {**backbone.describe(), "pooling": pooled, "precision": backbone.precision}
        facts[name]["id"] = public_id(backbone.id)
        for task, dataset in splits.items():
            embedded = embed(dataset, backbone, pooling=pooled, cache_dir=cache_dir, progress=progress)
            train, validation, tests[task] = (part_of(embedded, split) for split in SPLITS)
            classes = len(dataset.features["label"].names)
            outcomes[task, name] = score_heads(train, validation, tests[task], classes)
    rows = []
    for task, test in tests.items():
        for name in backbones:
            others = {other: outcomes[task, other] for other in against if other != name}
            rows += figures(task, name, outcomes[task, name], others, test, n_bootstrap, seed)
    described = {task: describe_data(dataset, data[task]) for task, dataset in splits.items()}
    return Study(rows, facts, described, seed, n_bootstrap)
