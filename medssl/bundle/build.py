"""Build a bundle from a folder or Hub data set of labeled images."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from medssl.audit.audit import audit_data, audit_neighbors
from medssl.backbones.backbone import Backbone, shared_backbone
from medssl.backbones.embedder import Embedder
from medssl.backbones.embeddings import default_cache
from medssl.backbones.frames import Frames, SelectedFrames
from medssl.bundle.bundle import Bundle
from medssl.bundle.cards.model import write_card
from medssl.bundle.cases import CASE_COLUMNS
from medssl.bundle.measure import image_probabilities, measure, part_of
from medssl.bundle.scan import scan_pictures
from medssl.data.labels import in_label_order
from medssl.data.load import load_data
from medssl.data.split import split_data
from medssl.data.tasks import TASKS, Task, get_task
from medssl.errors import BundleError, DataError
from medssl.heads.config import LINEAR
from medssl.heads.fit_linear import fit_head
from medssl.heads.fit_patch import LabelledTokens, default_layers, fit_patch_head
from medssl.heads.head import Head
from medssl.heads.patch import KINDS, PATCH
from medssl.hub.licenses import UNKNOWN
from medssl.images import thumbnails
from medssl.images.preprocess import Preprocess

# Tasks where a patch head was at least as accurate as a linear one and its maps more faithful (docs, ViT-Tiny), at
# this many times the backbone's side.
PATCH_BY_DEFAULT = ("lung",)
PATCH_SCALE = 2


@dataclass(frozen=True)
class BuildOptions:
    """How a bundle is built; every field has a default.

    `head` is "linear" (one layer over the pooled embedding) or "patch" (the strongest patches decide; see PatchHead);
    by default patch for PATCH_BY_DEFAULT, at twice the backbone's input side unless `preprocess` says otherwise.
    `revision` is the backbone's. `others` are data of other tasks (name -> folder), embedded only to see how many are
    flagged unfamiliar. `thumbnail_side` is the longer side of a case's picture in pixels.
    """

    labels: Sequence[str] | None = None
    pooling: str | None = None
    preprocess: Preprocess | None = None
    revision: str | None = None
    head: str | None = None
    others: Mapping[str, str | Path] = field(default_factory=dict)
    cache_dir: str | Path | None = None
    seed: int = 0
    thumbnail_side: int = thumbnails.SIDE
    license: str = UNKNOWN
    progress: bool = True

    def __post_init__(self) -> None:
        if self.head is not None and self.head not in KINDS:
            raise BundleError(f"There is no head of kind {self.head!r}. Allowed: {', '.join(KINDS)}.")
        object.__setattr__(self, "others", dict(self.others or {}))


def as_cases(dataset: Dataset, pictures: Dataset) -> Dataset:
    """An embedded data set and its pictures (ids and thumbnails) as cases: only the columns a bundle holds."""
    kept = [name for name in CASE_COLUMNS if name in dataset.column_names and name not in pictures.column_names]
    return concatenate_datasets([pictures, dataset.select_columns(kept)], axis=1).select_columns(list(CASE_COLUMNS))


def rows_of(dataset: Dataset, *splits: str) -> np.ndarray:
    """The rows of some splits, one split after the other."""
    values = np.asarray(dataset["split"][:])
    return np.concatenate([np.flatnonzero(values == split) for split in splits])


def fit_kind(
    kind: str, dataset: Dataset, frames: Frames, task: Task, embedder: Embedder, facts: dict, options: BuildOptions
) -> Head:
    """A head of a kind, fitted on the train and val split of an embedded data set with its frames."""
    parts = part_of(dataset, "train"), part_of(dataset, "val")
    if kind == LINEAR:
        return fit_head(*parts, task, embedder, facts)
    rows = rows_of(dataset, "train", "val")
    tokens = embedder.patch_tokens(
        dataset.select(rows),
        default_layers(embedder.backbone),
        options.cache_dir,
        options.progress,
        SelectedFrames(frames, rows),
    )
    first, second = len(parts[0]), len(rows)
    sides = [
        LabelledTokens(part, tokens, own) for part, own in zip(parts, (range(first), range(first, second)), strict=True)
    ]
    return fit_patch_head(*sides, task, embedder, facts, options.seed, options.progress)


def open_data(data: str | Path, name: str, labels: Sequence[str] | None) -> tuple[Dataset, Task]:
    """The data set with its labels in the task's order, and the task. Raises DataError."""
    dataset = load_data(data, labels=labels)
    task = get_task(name, dataset.features["label"].names)
    return dataset if labels is not None else in_label_order(dataset, task.labels, str(data)), task


def choose_head(task: Task, backbone: Backbone, options: BuildOptions) -> tuple[str, Embedder]:
    """The kind of head, and the embedder that feeds it."""
    kind, preprocess = options.head, options.preprocess
    if kind is None and backbone.stride and task.name in PATCH_BY_DEFAULT and task is TASKS[task.name]:
        kind, preprocess = PATCH, preprocess or backbone.preprocess.scaled(PATCH_SCALE)
    return kind or LINEAR, Embedder.of(backbone, preprocess, options.pooling)


def build_bundle(
    data: str | Path,
    task: str,
    backbone: str | Path | Backbone,
    out: str | Path | None = None,
    options: BuildOptions | None = None,
    **settings: Any,  # noqa: ANN401
) -> Bundle:
    """Load, audit, split, embed, fit, measure on the test split, and save to `out` (when given).

    `settings` are fields of BuildOptions. Each file is decoded once. Files that cannot be read are left out and named
    in the audit. Raises DataError, BackboneError, BundleError.
    """
    options = replace(options or BuildOptions(), **settings)
    if not isinstance(backbone, Backbone):
        backbone = shared_backbone(str(backbone), options.revision)
    dataset, found_task = open_data(data, task, options.labels)
    workplace = Path(options.cache_dir or default_cache())
    workplace.mkdir(parents=True, exist_ok=True)
    # The pictures of the cases stay mapped after their file is gone, until the bundle is.
    with tempfile.TemporaryDirectory(prefix="build-", dir=workplace, ignore_cleanup_errors=True) as folder:
        bundle = build_in(Path(folder), data, dataset, found_task, backbone, options)
        bundle.name = Path(out).name if out else found_task.name
    if out is not None:
        bundle.save(out)
    return bundle


def build_in(
    folder: Path, source: str | Path, dataset: Dataset, task: Task, backbone: Backbone, options: BuildOptions
) -> Bundle:
    """The measured bundle of a loaded data set, with `folder` for what lies on disk meanwhile."""
    kind, embedder = choose_head(task, backbone, options)
    scan = scan_pictures(dataset, embedder.preprocess, folder, options.thumbnail_side, options.progress)
    if not len(scan.readable):
        raise DataError(f"None of the {len(dataset)} files of {source} can be read as an image.")
    dataset = split_data(dataset, seed=options.seed, same=scan.ids)
    audit = audit_data(dataset, options.seed, fingerprints=scan.fingerprints)
    dataset = embedder.embed(dataset.select(scan.readable), options.cache_dir, options.progress, scan.frames)
    audit = audit_neighbors(audit, dataset, options.seed)
    name = Path(source).resolve().name if Path(source).is_dir() else str(source)
    facts = {"data": name, "seed": options.seed}
    head = fit_kind(kind, dataset, scan.frames, task, embedder, facts, options)
    bundle = Bundle(head, as_cases(dataset, scan.pictures), backbone, name=task.name)
    rows = rows_of(dataset, "test")
    test = dataset.select(rows)
    frames = SelectedFrames(scan.frames, rows)
    others = {
        other: part_of(embedder.embed(load_data(place), options.cache_dir, options.progress))
        for other, place in options.others.items()
    }
    probabilities = image_probabilities(test, head, backbone, options.progress, frames)
    bundle.metrics = {
        "data": name,
        "split": "test",
        **measure(bundle, part_of(test), others, seed=options.seed, probabilities=probabilities),
        "audit": audit.to_dict(),
    }
    bundle.card = write_card(bundle, audit.table(), license=options.license)
    return bundle
