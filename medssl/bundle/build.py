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
from medssl.data.tasks import Task, get_task
from medssl.errors import BundleError, DataError
from medssl.explain.check import CHECK_SECONDS, CheckPlan, check_explainers
from medssl.heads.choice import AUTO, Candidate, asked_for, compare_kinds, patch_not_tried
from medssl.heads.config import LINEAR
from medssl.heads.fit_linear import linear_candidate
from medssl.heads.fit_patch import LabelledTokens, default_layers, patch_candidate
from medssl.heads.head import Head
from medssl.heads.patch import KINDS, PATCH
from medssl.hub.licenses import UNKNOWN
from medssl.images import thumbnails
from medssl.images.preprocess import Preprocess

# Patch tokens of train and validation beyond this are not computed only to try a patch head: their time grows alike.
MOST_TOKEN_BYTES = 2**30


@dataclass(frozen=True)
class BuildOptions:
    """How a bundle is built; every field has a default.

    `head` is "linear" (one layer over the pooled embedding), "patch" (the strongest patches decide; see PatchHead), or
    "auto": both are fitted and validation chooses, see `compare_kinds`. `explainer_seconds` bounds the check of the
    explainers on validation, see `check_explainers`; 0 leaves it out.
    `revision` is the backbone's, `data_revision` the Hub data set's. `others` are data of other tasks (name -> folder),
    embedded only to see how many are flagged unfamiliar. `thumbnail_side` is the longer side of a case's picture in
    pixels.
    """

    labels: Sequence[str] | None = None
    pooling: str | None = None
    preprocess: Preprocess | None = None
    revision: str | None = None
    data_revision: str | None = None
    head: str = AUTO
    explainer_seconds: float = CHECK_SECONDS
    others: Mapping[str, str | Path] = field(default_factory=dict)
    cache_dir: str | Path | None = None
    seed: int = 0
    thumbnail_side: int = thumbnails.SIDE
    license: str = UNKNOWN
    progress: bool = True

    def __post_init__(self) -> None:
        if self.head not in (AUTO, *KINDS):
            raise BundleError(f"There is no head of kind {self.head!r}. Allowed: {', '.join((AUTO, *KINDS))}.")
        if not self.explainer_seconds >= 0:
            raise BundleError(f"explainer_seconds is {self.explainer_seconds}; allowed: 0 (no check) or more.")
        object.__setattr__(self, "others", dict(self.others or {}))


def as_cases(dataset: Dataset, pictures: Dataset) -> Dataset:
    """An embedded data set and its pictures (ids and thumbnails) as cases: only the columns a bundle holds."""
    kept = [name for name in CASE_COLUMNS if name in dataset.column_names and name not in pictures.column_names]
    return concatenate_datasets([pictures, dataset.select_columns(kept)], axis=1).select_columns(list(CASE_COLUMNS))


def rows_of(dataset: Dataset, *splits: str) -> np.ndarray:
    """The rows of some splits, one split after the other."""
    values = np.asarray(dataset["split"][:])
    return np.concatenate([np.flatnonzero(values == split) for split in splits])


def token_bytes(embedder: Embedder, images: int) -> int:
    """How much the patch tokens that a patch head is fitted on take, all its layers."""
    height, width = (side // embedder.backbone.stride for side in embedder.preprocess.size)
    layers = len(default_layers(embedder.backbone))
    return layers * images * height * width * embedder.backbone.dimension * np.dtype(np.float16).itemsize


def why_not_patch(embedder: Embedder, images: int) -> str | None:
    """Why a patch head is not worth a try on so many images; None where it is."""
    if not embedder.backbone.stride:
        return "the backbone gives no patch tokens"
    size = token_bytes(embedder, images)
    if size > MOST_TOKEN_BYTES:
        return (
            f"its patch tokens would take {size / 2**30:.1f} GiB and as much time (the bound is "
            f"{MOST_TOKEN_BYTES / 2**30:.0f} GiB; --head patch fits one all the same)"
        )
    return None


def patch_sides(
    dataset: Dataset, frames: Frames, embedder: Embedder, options: BuildOptions
) -> tuple[LabelledTokens, LabelledTokens]:
    """Train and validation of an embedded data set with their patch tokens."""
    rows = rows_of(dataset, "train", "val")
    tokens = embedder.patch_tokens(
        dataset.select(rows),
        default_layers(embedder.backbone),
        options.cache_dir,
        options.progress,
        SelectedFrames(frames, rows),
    )
    train, validation = part_of(dataset, "train"), part_of(dataset, "val")
    first = len(train)
    return LabelledTokens(train, tokens, range(first)), LabelledTokens(validation, tokens, range(first, len(rows)))


def fit_kind(
    dataset: Dataset, frames: Frames, task: Task, embedder: Embedder, facts: dict, options: BuildOptions
) -> tuple[Head, dict]:
    """A head fitted on the train and val split of an embedded data set with its frames, and how its kind was chosen."""
    parts, seed = (part_of(dataset, "train"), part_of(dataset, "val")), options.seed

    def patch() -> Candidate:
        sides = patch_sides(dataset, frames, embedder, options)
        return patch_candidate(*sides, task, embedder, facts, seed, options.progress)

    if options.head == PATCH:
        return patch().head, asked_for(PATCH)
    linear = linear_candidate(*parts, task, embedder, facts, seed)
    if options.head == LINEAR:
        return linear.head, asked_for(LINEAR)
    reason = why_not_patch(embedder, sum(map(len, parts)))
    if reason:
        return linear.head, patch_not_tried(reason)
    other = patch()
    record = compare_kinds(linear, other, parts[1], seed)
    return (other if record["chosen"] == PATCH else linear).head, record


def open_data(
    data: str | Path, name: str, labels: Sequence[str] | None, revision: str | None = None
) -> tuple[Dataset, Task]:
    """The data set, of a revision on the Hub, with its labels in the task's order, and the task. Raises DataError."""
    dataset = load_data(data, labels=labels, revision=revision)
    task = get_task(name, dataset.features["label"].names)
    return dataset if labels is not None else in_label_order(dataset, task.labels, str(data)), task


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
    dataset, found_task = open_data(data, task, options.labels, options.data_revision)
    workplace = Path(options.cache_dir or default_cache())
    workplace.mkdir(parents=True, exist_ok=True)
    # The pictures of the cases stay mapped after their file is gone, until the bundle is.
    with tempfile.TemporaryDirectory(prefix="build-", dir=workplace, ignore_cleanup_errors=True) as folder:
        bundle = build_in(Path(folder), data, dataset, found_task, backbone, options)
        bundle.name = Path(out).name if out else found_task.name
    if out is not None:
        bundle.save(out)
    return bundle


def check_on_validation(bundle: Bundle, dataset: Dataset, frames: Frames, options: BuildOptions) -> dict:
    """The check of a bundle's explainers on the validation images of its embedded data set with their frames."""
    rows = rows_of(dataset, "val")
    plan = CheckPlan(options.explainer_seconds, seed=options.seed, progress=options.progress)
    groups = [str(group) for group in dataset.select(rows)["group_id"][:]]
    return check_explainers(bundle.backbone, bundle.head, SelectedFrames(frames, rows), groups, plan)


def build_in(
    folder: Path, source: str | Path, dataset: Dataset, task: Task, backbone: Backbone, options: BuildOptions
) -> Bundle:
    """The measured bundle of a loaded data set, with `folder` for what lies on disk meanwhile."""
    embedder = Embedder.of(backbone, options.preprocess, options.pooling)
    scan = scan_pictures(dataset, embedder.preprocess, folder, options.thumbnail_side, options.progress)
    if not len(scan.readable):
        raise DataError(f"None of the {len(dataset)} files of {source} can be read as an image.")
    dataset = split_data(dataset, seed=options.seed, same=scan.ids)
    audit = audit_data(dataset, options.seed, fingerprints=scan.fingerprints)
    dataset = embedder.embed(dataset.select(scan.readable), options.cache_dir, options.progress, scan.frames)
    audit = audit_neighbors(audit, dataset, options.seed)
    name = Path(source).resolve().name if Path(source).is_dir() else str(source)
    facts = {"data": name, "seed": options.seed}
    head, head_choice = fit_kind(dataset, scan.frames, task, embedder, facts, options)
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
        "head_choice": head_choice,
    }
    if options.explainer_seconds:
        bundle.metrics["explainer_check"] = check_on_validation(bundle, dataset, scan.frames, options)
    bundle.card = write_card(bundle, audit.table(), license=options.license)
    return bundle
