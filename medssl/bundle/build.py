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
from medssl.backbones.embeddings import with_embeddings
from medssl.backbones.frames import Frames, SelectedFrames
from medssl.backbones.merged_shards import merged_vectors
from medssl.backbones.reading import SPACES, Reading, union
from medssl.bundle.bundle import Bundle
from medssl.bundle.cards.model import write_card
from medssl.bundle.cases import CASE_COLUMNS
from medssl.bundle.group_rule import RULE, fit_group_rule
from medssl.bundle.localize import fit_bundle_localizer
from medssl.bundle.measure import image_probabilities, measure, part_of
from medssl.bundle.regions import train_regions
from medssl.bundle.scan import Scan, scan_pictures
from medssl.bundle.storage import check_place
from medssl.data.annotations import BOXES
from medssl.data.load import load_data, open_data
from medssl.data.split import split_data
from medssl.data.tasks import Task
from medssl.errors import BundleError, DataError
from medssl.explain.check import CHECK_SECONDS, MOST_IMAGES, CheckPlan, check_explainers
from medssl.heads.choice import AUTO, Candidate, asked_for, compare_kinds, patch_not_tried
from medssl.heads.config import LINEAR
from medssl.heads.fit_linear import check_classes, linear_candidate
from medssl.heads.fit_localizer import LocalizerPlan
from medssl.heads.fit_patch import LabelledTokens, default_layers, patch_candidate
from medssl.heads.head import Head
from medssl.heads.patch import KINDS, PATCH
from medssl.heads.reading_choice import asked_reading, choose_reading, readings_to_try
from medssl.hub.licenses import UNKNOWN
from medssl.images import thumbnails
from medssl.images.preprocess import Preprocess
from medssl.library.case_map import with_map
from medssl.library.fit_space import choose_space
from medssl.library.library import embedding_matrix
from medssl.pretrain.finetune_facts import check_unseen
from medssl.runtime import default_cache

# Patch tokens of train and validation beyond this are not computed only to try a patch head: their time grows alike.
MOST_TOKEN_BYTES = 2**30


@dataclass(frozen=True)
class BuildOptions:
    """How a bundle is built; every field has a default.

    `head` is "linear" (one layer over the pooled embedding), "patch" (the strongest patches decide; see PatchHead), or
    "auto": both are fitted and validation chooses, see `compare_kinds`. `explainer_seconds` and `explainer_images`
    bound the check of the explainers on validation, see `check_explainers`; 0 seconds leave it out. `pooling` says what
    an embedding is made of, as the text of a Reading or the name of one ("cls-last4"), `case_space` in which space
    cases are compared (plain, standardized, whitened); "auto" lets validation choose, see `choose_reading` and
    `choose_space`.
    `localizer` fits one where enough pictures are annotated, see `fit_bundle_localizer`;
    `regions` keeps the reduced patch tokens of the library in the bundle, so that regions can be searched.
    `revision` is the backbone's, `data_revision` the Hub data set's. `others` are data of other tasks (name -> folder),
    embedded only to see how many are flagged unfamiliar. `embedded` is a folder of shards that `embed_shard` made of
    these data: their embeddings are taken, none is computed. `finetune` is the record of the tuning that decided on the
    backbone, see `build_finetuned`. `thumbnail_side` is the longer side of a case's picture in pixels.
    """

    labels: Sequence[str] | None = None
    pooling: str | None = None
    case_space: str = AUTO
    preprocess: Preprocess | None = None
    revision: str | None = None
    data_revision: str | None = None
    head: str = AUTO
    explainer_seconds: float = CHECK_SECONDS
    explainer_images: int = MOST_IMAGES
    localizer: bool = True
    regions: bool = False
    others: Mapping[str, str | Path] = field(default_factory=dict)
    embedded: str | Path | None = None
    cache_dir: str | Path | None = None
    seed: int = 0
    thumbnail_side: int = thumbnails.SIDE
    license: str = UNKNOWN
    finetune: Mapping[str, Any] | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.head not in (AUTO, *KINDS):
            raise BundleError(f"There is no head of kind {self.head!r}. Allowed: {', '.join((AUTO, *KINDS))}.")
        if not self.explainer_seconds >= 0:
            raise BundleError(f"explainer_seconds is {self.explainer_seconds}; allowed: 0 (no check) or more.")
        if self.explainer_images < 1:
            raise BundleError(f"explainer_images is {self.explainer_images}; at least 1 is needed.")
        if self.case_space not in (AUTO, *SPACES):
            raise BundleError(f"There is no space {self.case_space!r}. Allowed: {', '.join((AUTO, *SPACES))}.")
        object.__setattr__(self, "pooling", self.pooling or AUTO)
        object.__setattr__(self, "others", dict(self.others or {}))


def as_cases(dataset: Dataset, pictures: Dataset) -> Dataset:
    """An embedded data set and its pictures (ids and thumbnails) as cases: only the columns a bundle holds."""
    kept = [name for name in CASE_COLUMNS if name in dataset.column_names and name not in pictures.column_names]
    return concatenate_datasets([pictures, dataset.select_columns(kept)], axis=1).select_columns(list(CASE_COLUMNS))


def rows_of(dataset: Dataset, *splits: str) -> np.ndarray:
    """The rows of some splits, one split after the other."""
    values = np.asarray(dataset["split"][:])
    return np.concatenate([np.flatnonzero(values == split) for split in splits])


def readings_of(backbone: Backbone, pooling: str) -> dict[str, Reading]:
    """The readings to try, by name: every candidate for "auto", else the one asked for. Raises BackboneError."""
    return readings_to_try(backbone) if pooling == AUTO else {pooling: backbone.resolve_reading(pooling)}


def embedded_pictures(dataset: Dataset, scan: Scan, embedder: Embedder, options: BuildOptions) -> Dataset:
    """The readable rows of a data set with their embeddings: computed, or out of the shards that are at hand.

    What cannot be read goes through as a black frame and is left out after, so that the rows of a batch are the same
    wherever the pictures are embedded. Raises DataError for shards of something else.
    """
    if options.embedded is None:
        vectors = embedder.vectors(dataset, options.cache_dir, options.progress, scan.all_frames)
    else:
        vectors = merged_vectors(options.embedded, dataset["file_name"][:], scan.ids, embedder)
    return with_embeddings(dataset.select(scan.readable), vectors[scan.readable])


def with_chosen_reading(
    dataset: Dataset, embedder: Embedder, readings: Mapping[str, Reading], task: Task, options: BuildOptions
) -> tuple[Dataset, Embedder, dict]:
    """A data set embedded with all readings, with the chosen one's embeddings alone; its embedder; and how it was
    chosen. Raises DataError when a class is missing from train or validation.
    """
    width, seed = embedder.backbone.dimension, options.seed
    if options.pooling != AUTO:
        (reading,) = readings.values()
        return dataset, embedder, asked_reading(options.pooling, reading)
    train, validation = part_of(dataset, "train"), part_of(dataset, "val")
    check_classes(task, train, validation)
    reading, record = choose_reading(train, validation, readings, width, len(task.labels), seed)
    columns = reading.columns(union(readings.values()), width)
    vectors = np.ascontiguousarray(embedding_matrix(dataset)[:, columns])
    return with_embeddings(dataset, vectors), replace(embedder, pooling=reading.pooling), record


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
    if out is not None:
        check_place(Path(out))  # now, not after the work
    others = {other: load_data(place) for other, place in options.others.items()}
    if not isinstance(backbone, Backbone):
        backbone = shared_backbone(str(backbone), options.revision)
    dataset, found_task = open_data(data, task, options.labels, options.data_revision)
    workplace = Path(options.cache_dir or default_cache())
    workplace.mkdir(parents=True, exist_ok=True)
    # The pictures of the cases stay mapped after their file is gone, until the bundle is.
    with tempfile.TemporaryDirectory(prefix="build-", dir=workplace, ignore_cleanup_errors=True) as folder:
        bundle = build_in(Path(folder), data, dataset, found_task, backbone, others, options)
        bundle.name = Path(out).name if out else found_task.name
    if out is not None:
        bundle.save(out)
    return bundle


def check_on_validation(bundle: Bundle, dataset: Dataset, frames: Frames, options: BuildOptions) -> dict:
    """The check of a bundle's explainers on the validation images of its embedded data set with their frames."""
    rows = rows_of(dataset, "val")
    plan = CheckPlan(
        options.explainer_seconds, images=options.explainer_images, seed=options.seed, progress=options.progress
    )
    groups = [str(group) for group in dataset.select(rows)["group_id"][:]]
    return check_explainers(bundle.backbone, bundle.head, SelectedFrames(frames, rows), groups, plan)


def calibrate_groups(bundle: Bundle, dataset: Dataset, frames: Frames, options: BuildOptions) -> dict:
    """How a group's images become one answer, chosen on validation, as metrics.json has it; {} without groups."""
    rows, validation = rows_of(dataset, "val"), part_of(dataset, "val")
    selected = SelectedFrames(frames, rows)
    probabilities = image_probabilities(dataset.select(rows), bundle.head, bundle.backbone, options.progress, selected)
    level = bundle.head.thresholds.conformal_level
    train = part_of(dataset, "train")
    rule = fit_group_rule(probabilities.numpy().astype(np.float64), validation, train, bundle.labels, level)
    return {RULE: rule.to_dict()} if rule else {}


def build_in(
    folder: Path,
    source: str | Path,
    dataset: Dataset,
    task: Task,
    backbone: Backbone,
    others: Mapping[str, Dataset],
    options: BuildOptions,
) -> Bundle:
    """The measured bundle of a loaded data set, with `folder` for what lies on disk meanwhile."""
    preprocess = options.preprocess or backbone.preprocess
    readings = readings_of(backbone, options.pooling)
    embedder = Embedder(backbone, preprocess, union(readings.values()).pooling)
    scan = scan_pictures(dataset, preprocess, folder, options.thumbnail_side, options.progress)
    if not len(scan.readable):
        raise DataError(f"None of the {len(dataset)} files of {source} can be read as an image.")
    dataset = split_data(dataset, seed=options.seed, same=scan.ids)
    check_unseen(backbone, dataset)
    audit = audit_data(dataset, options.seed, fingerprints=scan.fingerprints)
    dataset = embedded_pictures(dataset, scan, embedder, options)
    dataset, embedder, reading_choice = with_chosen_reading(dataset, embedder, readings, task, options)
    audit = audit_neighbors(audit, dataset, options.seed)
    name = Path(source).resolve().name if Path(source).is_dir() else str(source)
    facts = {"data": name, "seed": options.seed}
    head, head_choice = fit_kind(dataset, scan.frames, task, embedder, facts, options)
    space, space_choice = choose_space(
        part_of(dataset, "train"), part_of(dataset, "val"), options.case_space, options.seed
    )
    head = head.compared_in(space_choice["chosen"])
    localizer, about_localizer = None, {}
    if options.localizer and BOXES in dataset.column_names:
        plan = LocalizerPlan(facts=facts, seed=options.seed, progress=options.progress)
        localizer, about_localizer = fit_bundle_localizer(dataset, embedder, plan, options.cache_dir)
    cases = with_map(as_cases(dataset, scan.pictures), space, options.seed)
    bundle = Bundle(head, cases, backbone, name=task.name, localizer=localizer, space=space)
    bundle.metrics = calibrate_groups(bundle, dataset, scan.frames, options)
    if options.regions:
        kept = options.cache_dir, options.progress
        bundle.regions = train_regions(dataset, bundle.cases, scan.frames, embedder, *kept)
    rows = rows_of(dataset, "test")
    test = dataset.select(rows)
    frames = SelectedFrames(scan.frames, rows)
    parts = {
        other: part_of(embedder.embed(data, options.cache_dir, options.progress)) for other, data in others.items()
    }
    probabilities = image_probabilities(test, head, backbone, options.progress, frames)
    bundle.metrics |= {
        "data": name,
        "split": "test",
        **measure(bundle, part_of(test), parts, seed=options.seed, probabilities=probabilities),
        "audit": audit.to_dict(),
        "reading_choice": reading_choice,
        "head_choice": head_choice,
        "space_choice": space_choice,
        **({"finetune": dict(options.finetune)} if options.finetune else {}),
        **({"localizer": about_localizer} if about_localizer else {}),
    }
    if options.explainer_seconds:
        bundle.metrics["explainer_check"] = check_on_validation(bundle, dataset, scan.frames, options)
    bundle.card = write_card(bundle, audit.table(), license=options.license)
    return bundle
