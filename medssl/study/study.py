"""A study: the same tasks and splits across several backbones, each figure and each paired difference on test."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
from medssl.errors import BackboneError, DataError
from medssl.heads.fit_linear import versions
from medssl.library.library import embedding_matrix
from medssl.pretrain.runner import device_name
from medssl.runtime import processors
from medssl.study.image_level import image_level_trial
from medssl.study.kinds import CONTROL, KINDS, SELF, SUPERVISED, kind_of
from medssl.study.label_efficiency import DRAWS, SHARES, label_efficiency
from medssl.study.probes import score_heads
from medssl.study.random_twin import open_backbone, public_id
from medssl.study.results import Row
from medssl.study.rows import Truth, adjust, backbone_rows, difference_rows
from medssl.study.runs import BY_GROUP, Measured, Trial, map_embeddings, trials_fingerprint


@dataclass
class StudiedTask:
    """One task of a study: its split data set, what is known of the images, the audit, and the trials by backbone."""

    dataset: Dataset
    truth: Truth
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


def open_task(source: str | Path, audited: bool, seed: int, progress: bool) -> StudiedTask:
    """A task's data, split and audited; files that cannot be read are left out and named in the audit.

    Raises DataError.
    """
    dataset = split_data(load_data(source), seed=seed)
    audit = audit_data(dataset, seed, progress) if audited else None
    if audit and audit.undecodable:
        broken = set(audit.undecodable)
        dataset = dataset.select([row for row, name in enumerate(dataset["file_name"]) if name not in broken])
    columns = {name: np.asarray(dataset[name][:]) for name in ("label", "group_id", "source")}
    truth = Truth(columns["label"], columns["group_id"].astype(str), dataset.features["label"].names)
    return StudiedTask(dataset, truth, columns["source"].astype(str), describe_data(dataset, source), audit)


def measure_backbone(
    task: StudiedTask,
    backbone: Backbone,
    pooling: str,
    shares: Sequence[float],
    draws: int,
    seed: int,
    cache_dir: str | Path | None,
    progress: bool,
) -> Measured:
    """Every trial of a backbone on a task. Raises DataError, BackboneError, ImageError."""
    started = time.perf_counter()
    embedded = embed(task.dataset, backbone, pooling=pooling, cache_dir=cache_dir, progress=progress)
    vectors, labels, groups = embedding_matrix(embedded), task.truth.labels, task.truth.groups
    embedded_at = time.perf_counter()
    splits, classes = np.asarray(embedded["split"][:]), len(task.truth.names)
    train, validation, test = (part_of(embedded, split) for split in SPLITS)
    rows, seeds = np.flatnonzero(splits == "test"), range(seed, seed + draws)
    # Matrices are small: on a busy machine several threads a product made these fits ten times slower.
    with threadpool_limits(1):
        full = score_heads(train, validation, test, classes)
        trials = [Trial(BY_GROUP, 1.0, seed, len(train.labels), len(set(train.groups)), rows, full)]
        trials += label_efficiency(train, validation, test, rows, classes, shares, seeds)
        trials += [image_level_trial(vectors, labels, groups, splits, classes, draw) for draw in seeds]
        about = map_embeddings(vectors, seed)
    return Measured(trials, about, embedded_at - started, time.perf_counter() - embedded_at)


def measure_or_load(
    task: StudiedTask,
    backbone: Backbone,
    pooling: str,
    shares: Sequence[float],
    draws: int,
    seed: int,
    cache_dir: str | Path | None,
    parts: Path | None,
    progress: bool,
) -> Measured:
    """The trials of a backbone on a task, from `parts` where they were measured before, else measured and kept there.

    Raises DataError, BackboneError, ImageError.
    """
    place = None
    if parts is not None:
        place = parts / f"{trials_fingerprint(task.dataset, backbone, pooling, shares, draws, seed)}.parquet"
        found = Measured.load(place)
        if found is not None:
            return found
    found = measure_backbone(task, backbone, pooling, shares, draws, seed, cache_dir, progress)
    if place is not None:
        try:
            found.save(place)
        except OSError as error:
            raise DataError(f"{parts} cannot be written: {error.strerror or error}. Give a folder that can.") from error
    return found


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


def make_folder(folder: Path) -> None:
    """Make a folder, before anything is measured that is to be kept in it. Raises DataError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}. Give a folder that can.") from error


def check_study(
    backbones: Mapping[str, object],
    data: Mapping[str, object],
    against: Sequence[str],
    kinds: Mapping[str, str],
    draws: int,
) -> None:
    """Raises DataError or BackboneError where a study cannot be made of what was given."""
    for kind, given in (("backbone", backbones), ("task", data)):
        if not given:
            raise DataError(f"A study needs at least one {kind} and none was given. Name one or more.")
    for what, given in (("reference", against), ("kind of", list(kinds))):
        unknown = [name for name in given if name not in backbones]
        if unknown:
            raise BackboneError(
                f"The {what} {', '.join(unknown)} is none of the backbones compared. Allowed: {', '.join(backbones)}."
            )
    wrong = [f"{name}={kind}" for name, kind in kinds.items() if kind not in KINDS]
    if wrong:
        raise BackboneError(f"{', '.join(wrong)} is no kind of training. Allowed: {', '.join(KINDS)}.")
    if draws < 1:
        raise DataError(f"{draws} draws of the training groups cannot be averaged. Allowed: 1 or more.")


def compare(
    backbones: Mapping[str, str | Path | Backbone],
    data: Mapping[str, str | Path],
    against: Sequence[str] = (),
    pooling: str | None = None,
    seed: int = 0,
    n_bootstrap: int = 1000,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    kinds: Mapping[str, str] | None = None,
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
    parts: str | Path | None = None,
    audited: bool = True,
) -> Study:
    """Measure every backbone (name -> registry name, Hub id, folder or Backbone) on every task (name -> data).

    `against` names the backbones that all others are compared with; every self-supervised one is compared with every
    supervised one. `kinds` says how a backbone was trained where its source does not tell. `shares` below 1 and `draws`
    are those of label efficiency. With `parts`, a folder, what was measured is kept and found again. Backbones are
    opened one after the other. Raises DataError, BackboneError, ImageError.
    """
    started = time.perf_counter()
    check_study(backbones, data, against, kinds or {}, draws)
    known = {name: (kinds or {}).get(name) or kind_of(source) for name, source in backbones.items()}
    folder = None if parts is None else Path(parts)
    if folder is not None:
        make_folder(folder)
    tasks = {name: open_task(source, audited, seed, progress) for name, source in data.items()}
    looks = audit_backbone(known)
    facts: dict[str, dict] = {}
    with tqdm(total=len(backbones) * len(tasks), desc="study", unit="pair", disable=not progress) as bar:
        for name, source in backbones.items():
            backbone = open_backbone(source, seed)
            pooled = pooling or backbone.default_pooling
            facts[name] = {**backbone.describe(), "pooling": pooled, "precision": backbone.precision}
            facts[name].update(id=public_id(backbone.id), kind=known[name])
            facts[name]["input"] = " x ".join(map(str, backbone.preprocess.size))
            for task in tasks.values():
                task.measured[name] = measure_or_load(
                    task, backbone, pooled, shares, draws, seed, cache_dir, folder, progress
                )
                if task.audit is not None and name == looks:
                    embedded = embed(task.dataset, backbone, pooling=pooled, cache_dir=cache_dir, progress=False)
                    task.audit = audit_neighbors(task.audit, embedded, seed)
                    task.worst = worst_pairs(task.audit.findings, task.dataset)
                bar.update()
    rows, differences = [], []
    pairs = pairs_to_compare(list(backbones), known, against)
    for name, task in tasks.items():
        trials = {backbone: found.trials for backbone, found in task.measured.items()}
        for backbone, found in trials.items():
            base = Row(name, backbone, "", "", None, None, None, 0, 0, seed, kind=known[backbone])
            rows += backbone_rows(base, found, task.truth, n_bootstrap)
        differences += difference_rows(name, trials, pairs, known, task.truth, n_bootstrap, seed)
    return Study(
        [*rows, *adjust(differences)],
        facts,
        {name: task.facts for name, task in tasks.items()},
        seed,
        n_bootstrap,
        draws,
        known,
        tasks,
        describe_machine(),
        time.perf_counter() - started,
    )
