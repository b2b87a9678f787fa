"""Build a bundle from a folder or Hub data set of labelled images."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from tqdm.auto import tqdm

from medssl.audit.audit import audit_data, audit_neighbours
from medssl.backbones.backbone import Backbone, shared_backbone
from medssl.backbones.embedder import Embedder
from medssl.bundle.bundle import CASE_COLUMNS, Bundle
from medssl.bundle.cards.model import write_card
from medssl.bundle.measure import image_probabilities, measure, part_of
from medssl.data.load import load_data, read_record, split_data
from medssl.data.tasks import TASKS, Task, get_task
from medssl.errors import BundleError, DataError
from medssl.heads.config import LINEAR
from medssl.heads.fit_linear import fit_head
from medssl.heads.fit_patch import LabelledTokens, default_layers, fit_patch_head
from medssl.heads.head import Head
from medssl.heads.patch import KINDS, PATCH
from medssl.images.preprocess import Preprocess
from medssl.images.read import image_id

THUMBNAIL_SIDE = 224
THUMBNAIL_QUALITY = 90
# Tasks where a patch head was at least as accurate as a linear one and its maps more faithful (README, ViT-Tiny), at
# this many times the backbone's side.
PATCH_BY_DEFAULT = ("lung",)
PATCH_SCALE = 2


def thumbnail(image: Image.Image, side: int = THUMBNAIL_SIDE) -> bytes:
    """An RGB image as JPEG bytes with a longer side of at most `side` pixels, without any metadata."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=THUMBNAIL_QUALITY)
    return stream.getvalue()


def as_cases(dataset: Dataset, progress: bool = True, side: int = THUMBNAIL_SIDE) -> Dataset:
    """An embedded data set as cases: an id from the pixels, a thumbnail, and only the columns a bundle holds."""

    def read(index: int) -> tuple[str, bytes]:
        picture = read_record(dataset[index])
        return image_id(picture), thumbnail(picture, side)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(
            tqdm(
                pool.map(read, range(len(dataset))),
                total=len(dataset),
                desc="thumbnails",
                unit="img",
                disable=not progress,
            )
        )
    cases = dataset.remove_columns(
        [name for name in dataset.column_names if name not in CASE_COLUMNS or name == "image"]
    )
    cases = cases.add_column("id", [name for name, _ in found])
    cases = cases.add_column("image", [{"bytes": data, "path": None} for _, data in found], feature=ImageFeature())
    return cases.select_columns(list(CASE_COLUMNS))


def fit_kind(
    kind: str,
    dataset: Dataset,
    task: Task,
    embedder: Embedder,
    facts: dict,
    cache_dir: str | Path | None,
    seed: int,
    progress: bool,
) -> Head:
    """A head of a kind, fitted on the train and val split of an embedded data set."""
    parts = part_of(dataset, "train"), part_of(dataset, "val")
    if kind == LINEAR:
        return fit_head(*parts, task, embedder, facts)
    splits = np.asarray(dataset["split"][:])
    train, validation = (np.flatnonzero(splits == name) for name in ("train", "val"))
    layers = default_layers(embedder.backbone)
    used = dataset.select([*train.tolist(), *validation.tolist()])
    tokens = embedder.patch_tokens(used, layers, cache_dir, progress)
    rows = range(len(train)), range(len(train), len(used))
    sides = [LabelledTokens(part, tokens, own) for part, own in zip(parts, rows, strict=True)]
    return fit_patch_head(*sides, task, embedder, facts, seed, progress)


def build_bundle(
    data: str | Path,
    task: str,
    backbone: str | Path | Backbone,
    out: str | Path | None = None,
    labels: Sequence[str] | None = None,
    pooling: str | None = None,
    preprocess: Preprocess | None = None,
    revision: str | None = None,
    others: Mapping[str, str | Path] | None = None,
    cache_dir: str | Path | None = None,
    seed: int = 0,
    thumbnail_side: int = THUMBNAIL_SIDE,
    progress: bool = True,
    head: str | None = None,
) -> Bundle:
    """Load, audit, split, embed, fit, measure on the test split, and save to `out` (when given).

    `head` is "linear" (one layer over the pooled embedding) or "patch" (the strongest patches decide; see PatchHead);
    by default patch for PATCH_BY_DEFAULT, at twice the backbone's input side unless `preprocess` says otherwise.

    `thumbnail_side` is the longer side of a case's picture in pixels. `others` are data of other tasks (name ->
    folder), embedded only to see how many are flagged unfamiliar. Files that cannot be read are left out and named in
    the audit. Raises DataError, BackboneError, BundleError.
    """
    if head is not None and head not in KINDS:
        raise BundleError(f"There is no head of kind {head!r}. Allowed: {', '.join(KINDS)}.")
    if not isinstance(backbone, Backbone):
        backbone = shared_backbone(str(backbone), revision)
    dataset = load_data(data, labels=labels)
    found_task = get_task(task, dataset.features["label"].names)
    if head is None and backbone.stride and task in PATCH_BY_DEFAULT and found_task is TASKS[task]:
        head, preprocess = PATCH, preprocess or backbone.preprocess.scaled(PATCH_SCALE)
    head = head or LINEAR
    embedder = Embedder.of(backbone, preprocess, pooling)
    if labels is None and list(found_task.labels) != dataset.features["label"].names:
        dataset = load_data(data, labels=found_task.labels)
    dataset = split_data(dataset, seed=seed)
    audit = audit_data(dataset, seed=seed, progress=progress)
    if audit.undecodable:
        broken = set(audit.undecodable)
        keep = [index for index, name in enumerate(dataset["file_name"]) if name not in broken]
        if not keep:
            raise DataError(f"None of the {len(dataset)} files of {data} can be read as an image.")
        dataset = dataset.select(keep)
    dataset = embedder.embed(dataset, cache_dir, progress)
    audit = audit_neighbours(audit, dataset, seed)
    source = str(data) if not Path(data).is_dir() else Path(data).resolve().name
    facts = {"data": source, "seed": seed}
    fitted = fit_kind(head, dataset, found_task, embedder, facts, cache_dir, seed, progress)
    name = Path(out).name if out else found_task.name
    bundle = Bundle(fitted, as_cases(dataset, progress, thumbnail_side), backbone, name=name)
    parts = {}
    for other, folder in (others or {}).items():
        parts[other] = part_of(embedder.embed(load_data(folder), cache_dir, progress))
    test = dataset.select(np.flatnonzero(np.asarray(dataset["split"][:]) == "test"))
    probabilities = image_probabilities(test, fitted, backbone, progress)
    bundle.metrics = {
        "data": source,
        "split": "test",
        **measure(bundle, part_of(test), parts, seed=seed, probabilities=probabilities),
        "audit": audit.to_dict(),
    }
    bundle.card = write_card(bundle, audit.table())
    if out is not None:
        bundle.save(out)
    return bundle
