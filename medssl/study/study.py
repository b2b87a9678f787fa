"""A study: the same tasks and splits across several backbones, each figure and each paired difference on test."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from medssl.audit.audit import Audit, audit_data, audit_neighbors
from medssl.audit.worst_pairs import WorstPair, worst_pairs
from medssl.backbones.backbone import Backbone
from medssl.backbones.embeddings import embed
from medssl.bundle.measure import part_of
from medssl.data.load import load_data
from medssl.data.rows import SPLITS
from medssl.data.split import split_data
from medssl.errors import DataError
from medssl.heads.fit_linear import versions
from medssl.library.library import embedding_matrix
from medssl.pretrain.finetune_facts import check_unseen, read_tuning
from medssl.pretrain.runner import device_name
from medssl.runtime import processors
from medssl.study.image_level import image_level_run
from medssl.study.kinds import CONTROL, SELF, SUPERVISED, kind_of
from medssl.study.label_efficiency import label_efficiency
from medssl.study.plan import StudyPlan
from medssl.study.probes import score_heads
from medssl.study.random_twin import open_backbone, public_id
from medssl.study.results import Row
from medssl.study.rows import TaskLabels, adjust, backbone_rows, difference_rows
from medssl.study.runs import BY_GROUP, Measured, Run, map_embeddings, runs_fingerprint


@dataclass
class StudiedTask:
    """One task of a study: its split data set, what is known of the images, the audit, and the runs by backbone."""

    dataset: Dataset
    task_labels: TaskLabels
    sources: np.ndarray
    facts: dict
    audit: Audit | None = None
    worst: list[WorstPair] = field(default_factory=list)
    measured: dict[str, Measured] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """The rows, and what they were measured with: backbones by name, data by task, seed, bootstrap resamples."""

    rows: list[Row]
    backbones: dict[str, dict]
    data: dict[str, dict]
    seed: int
    resamples: int
    draws: int
    kinds: dict[str, str]
    tasks: dict[str, StudiedTask] = field(compare=False)
    machine: dict[str, str] = field(compare=False)
    seconds: float = field(compare=False, default=0.0)


def describe_data(dataset: Dataset, source: str | Path) -> dict:
    """Where a task's data comes from, its images and groups a split, and test images whose group is in train too."""
    splits, groups = np.asarray(dataset["split"][:]), np.asarray(dataset["group_id"][:])
    counts = {name: f"{(splits == name).sum()} ({len(set(groups[splits == name]))})" for name in SPLITS}
    shared = int(np.isin(groups[splits == "test"], groups[splits == "train"]).sum())
    place = Path(source).resolve().name if Path(source).is_dir() else str(source)
    return {"data": place, "classes": len(dataset.features["label"].names), **counts, "shared": shared}


def describe_machine() -> dict[str, str]:
    """The hardware, and the versions that decide the figures."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cores = processors()
    return {"hardware": f"{device_name(device)}, {cores} CPU cores, {torch.get_num_threads()} threads", **versions()}


def open_task(source: str | Path, plan: StudyPlan) -> StudiedTask:
    """A task's data, split and audited; files that cannot be read are left out and named in the audit.

    Raises DataError.
    """
    dataset = split_data(load_data(source), seed=plan.seed)
    audit = audit_data(dataset, plan.seed, plan.progress) if plan.audited else None
    if audit and audit.undecodable:
        broken = set(audit.undecodable)
        dataset = dataset.select([row for row, name in enumerate(dataset["file_name"]) if name not in broken])
    columns = {name: np.asarray(dataset[name][:]) for name in ("label", "group_id", "source")}
    task_labels = TaskLabels(columns["label"], columns["group_id"].astype(str), dataset.features["label"].names)
    return StudiedTask(dataset, task_labels, columns["source"].astype(str), describe_data(dataset, source), audit)


def measure_backbone(task: StudiedTask, backbone: Backbone, plan: StudyPlan) -> Measured:
    """Every run of a backbone on a task. Raises DataError, BackboneError, ImageError."""
    check_unseen(backbone, task.dataset)
    started = time.perf_counter()
    embedded = embed_task(task, backbone, plan, plan.progress)
    vectors, labels, groups = embedding_matrix(embedded), task.task_labels.labels, task.task_labels.groups
    embedded_at = time.perf_counter()
    splits, classes = np.asarray(embedded["split"][:]), len(task.task_labels.names)
    train, validation, test = (part_of(embedded, split) for split in SPLITS)
    rows = np.flatnonzero(splits == "test")
    # Matrices are small: on a busy machine several threads a product made these fits ten times slower.
    with threadpool_limits(1):
        full = score_heads(train, validation, test, classes)
        runs = [Run(BY_GROUP, 1.0, plan.seed, len(train.labels), len(set(train.groups)), rows, full)]
        runs += label_efficiency(train, validation, test, rows, classes, plan.shares, plan.seeds)
        # An encoder that was tuned on this training split would be measured on images of it, were they split anew.
        if read_tuning(backbone.folder) is None:
            runs += [image_level_run(vectors, labels, groups, splits, classes, draw) for draw in plan.seeds]
        about = map_embeddings(vectors, plan.seed)
    return Measured(runs, about, embedded_at - started, time.perf_counter() - embedded_at)


def embed_task(task: StudiedTask, backbone: Backbone, plan: StudyPlan, progress: bool = False) -> Dataset:
    """A task's data set with its embeddings, from the cache where they were computed before."""
    pooling = plan.pooling_of(backbone)
    return embed(task.dataset, backbone, pooling=pooling, cache_dir=plan.cache_dir, progress=progress)


def measure_or_load(task: StudiedTask, backbone: Backbone, plan: StudyPlan) -> Measured:
    """What a backbone reaches on a task, from the plan's `parts` where it was measured before, else kept there.

    Raises DataError, BackboneError, ImageError.
    """
    if plan.parts is None:
        return measure_backbone(task, backbone, plan)
    pooling = plan.pooling_of(backbone)
    name = runs_fingerprint(task.dataset, backbone, pooling, plan.shares, plan.draws, plan.seed)
    file = Path(plan.parts) / f"{name}.parquet"
    measured = Measured.load(file)
    if measured is None:
        measured = measure_backbone(task, backbone, plan)
        with said_where_unwritable(file.parent):
            measured.save(file)
    return measured


@contextmanager
def said_where_unwritable(folder: Path) -> Iterator[None]:
    """A context for writing into a folder. Raises DataError where that cannot be done."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}. Give a folder that can.") from error


def pairs_to_compare(names: Sequence[str], kinds: Mapping[str, str], against: Sequence[str]) -> list[tuple[str, str]]:
    """Every other backbone against each reference, then each self-supervised against each supervised one."""
    pairs = [(name, reference) for name in names for reference in against if name != reference]
    own = [name for name in names if kinds[name] == SELF]
    supervised = [name for name in names if kinds[name] == SUPERVISED]
    pairs += [(a, b) for a in own for b in supervised]
    return list(dict.fromkeys(pairs))


def audit_backbone(kinds: Mapping[str, str]) -> str:
    """Whose embeddings the audit looks at: the first backbone that was trained, since they must tell images apart."""
    return next((name for name, kind in kinds.items() if kind != CONTROL), next(iter(kinds)))


def describe_backbone(backbone: Backbone, kind: str, plan: StudyPlan) -> dict:
    """What the report says of a backbone."""
    return {
        **backbone.describe(),
        "pooling": plan.pooling_of(backbone),
        "precision": backbone.precision,
        "id": public_id(backbone.id),
        "kind": kind,
        "input": " x ".join(map(str, backbone.preprocess.size)),
    }


def measure_all(
    backbones: Mapping[str, str | Path | Backbone],
    tasks: Mapping[str, StudiedTask],
    kinds: Mapping[str, str],
    plan: StudyPlan,
) -> dict[str, dict]:
    """Measure each backbone on each task, into `measured` of the task; the facts of the backbones by name."""
    facts: dict[str, dict] = {}
    audited_by = audit_backbone(kinds)
    with tqdm(total=len(backbones) * len(tasks), desc="study", unit="pair", disable=not plan.progress) as bar:
        for name, source in backbones.items():
            backbone = open_backbone(source, plan.seed)
            facts[name] = describe_backbone(backbone, kinds[name], plan)
            for task in tasks.values():
                task.measured[name] = measure_or_load(task, backbone, plan)
                if task.audit is not None and name == audited_by:
                    task.audit = audit_neighbors(task.audit, embed_task(task, backbone, plan), plan.seed)
                    task.worst = worst_pairs(task.audit.findings, task.dataset)
                bar.update()
    return facts


def study_rows(tasks: Mapping[str, StudiedTask], kinds: Mapping[str, str], plan: StudyPlan) -> list[Row]:
    """Every figure of every backbone, then every paired difference with its adjusted p-value."""
    rows, differences = [], []
    pairs = pairs_to_compare(list(kinds), kinds, plan.against)
    for name, task in tasks.items():
        runs = {backbone: measured.runs for backbone, measured in task.measured.items()}
        for backbone, own in runs.items():
            base = Row(name, backbone, "", "", None, None, None, 0, 0, plan.seed, kind=kinds[backbone])
            rows += backbone_rows(base, own, task.task_labels, plan.n_bootstrap)
        differences += difference_rows(name, runs, pairs, kinds, task.task_labels, plan.n_bootstrap, plan.seed)
    return [*rows, *adjust(differences)]


def compare(
    backbones: Mapping[str, str | Path | Backbone],
    data: Mapping[str, str | Path],
    plan: StudyPlan | None = None,
    **settings: Any,  # noqa: ANN401
) -> Study:
    """Measure every backbone (name -> registry name, Hub id, folder or Backbone) on every task (name -> data).

    `settings` are fields of StudyPlan. Every self-supervised backbone is compared with every supervised one, and all
    with those that the plan names. Backbones are opened one after the other. Raises DataError, BackboneError,
    ImageError.
    """
    started = time.perf_counter()
    plan = replace(plan or StudyPlan(), **settings)
    plan.check(backbones, data)
    kinds = {name: plan.kinds.get(name) or kind_of(source) for name, source in backbones.items()}
    if plan.parts is not None:
        with said_where_unwritable(Path(plan.parts)):
            Path(plan.parts).mkdir(parents=True, exist_ok=True)
    tasks = {name: open_task(source, plan) for name, source in data.items()}
    backbone_facts = measure_all(backbones, tasks, kinds, plan)
    return Study(
        study_rows(tasks, kinds, plan),
        backbone_facts,
        {name: task.facts for name, task in tasks.items()},
        plan.seed,
        plan.n_bootstrap,
        plan.draws,
        kinds,
        tasks,
        describe_machine(),
        time.perf_counter() - started,
    )
