"""A bundle's localizer: fitted where enough pictures are annotated, and measured on test."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.backbones.patch_tokens import Layer
from medssl.data.annotations import BOXES, patch_area
from medssl.data.load import read_record
from medssl.errors import DataError
from medssl.heads.fit_localizer import LocalizerPlan, figure, fit_localizer, layer_sets, point_scores
from medssl.heads.lesion_examples import AnnotatedTokens, raw_maps
from medssl.heads.localizer import Localizer, smoothed
from medssl.images.preprocess import Preprocess
from medssl.metrics.metric import figure_text

FEWEST = 5  # annotated pictures with a lesion in train, of each class that has lesions
LARGER = 1.375  # 308 for 224 pixels: patches are smaller against the lesion, and one forward still takes a moment
CONVOLUTION_STRIDE = 32
# More annotated pictures than this change little and cost tokens and time.
MOST_PICTURES = 1000


def annotated_rows(dataset: Dataset, *splits: str) -> np.ndarray:
    """The rows of some splits of which somebody said where the lesions are, one split after the other."""
    if BOXES not in dataset.column_names:
        return np.zeros(0, int)
    known = np.array([boxes is not None for boxes in dataset[BOXES][:]], bool)
    values = np.asarray(dataset["split"][:])
    return np.concatenate([np.flatnonzero(known & (values == split)) for split in splits])


def lesion_labels(dataset: Dataset, rows: np.ndarray) -> list[str]:
    """The classes of which at least one of these pictures has a lesion, in the data set's order."""
    names = dataset.features["label"].names
    chosen = dataset.select(rows)
    found = {label for label, boxes in zip(chosen["label"][:], chosen[BOXES][:], strict=True) if boxes}
    return [name for number, name in enumerate(names) if number in found]


def why_no_localizer(dataset: Dataset) -> str | None:
    """Why a localizer cannot be fitted on a data set with splits; None where it can."""
    rows = annotated_rows(dataset, "train")
    labels = lesion_labels(dataset, annotated_rows(dataset, "train", "val")) if len(rows) else []
    if not labels:
        return "no picture of the training split has a box or a mask of a lesion"
    chosen, names = dataset.select(rows), dataset.features["label"].names
    pairs = zip(chosen["label"][:], chosen[BOXES][:], strict=True)
    counts = Counter(names[label] for label, boxes in pairs if boxes)
    few = [f"{counts[label]} of {label}" for label in labels if counts[label] < FEWEST]
    if few:
        return f"too few training pictures have a box or mask ({', '.join(few)}; {FEWEST} of each class are needed)"
    return None


def scaled(preprocess: Preprocess, factor: float, stride: int) -> Preprocess:
    """The same at about `factor` times the size, in whole patches."""
    height, width = (max(stride, round(side * factor / stride) * stride) for side in preprocess.size)
    return replace(preprocess, size=(height, width))


def trial_sides(embedder: Embedder) -> list[Embedder]:
    """The input sizes worth a try: the head's own, and a larger one."""
    stride = embedder.backbone.stride or CONVOLUTION_STRIDE
    larger = scaled(embedder.preprocess, LARGER, stride)
    return [embedder, replace(embedder, preprocess=larger)]


def annotated_tokens(
    dataset: Dataset,
    embedder: Embedder,
    layers: tuple[Layer, ...],
    labels: list[str],
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> AnnotatedTokens:
    """All pictures of a data set, which must be annotated, with their patch tokens. Raises DataError, ImageError."""
    preprocess = embedder.preprocess
    tokens = embedder.patch_tokens(dataset, layers, cache_dir, progress)
    grid = token_grid(embedder.backbone, preprocess)
    sizes = [read_record(row).size if preprocess.fit == "pad" else preprocess.size[::-1] for row in dataset]
    areas = np.stack([patch_area(row, grid, preprocess, size) for row, size in zip(dataset, sizes, strict=True)])
    names = dataset.features["label"].names
    numbers = [labels.index(names[label]) if names[label] in labels else -1 for label in dataset["label"][:]]
    lesions = np.where(areas.reshape(len(areas), -1).any(axis=1), numbers, -1)
    return AnnotatedTokens(tokens, np.arange(len(dataset)), areas, lesions, np.asarray(dataset["group_id"][:]))


@torch.inference_mode()
def token_grid(backbone: Backbone, preprocess: Preprocess) -> tuple[int, int]:
    """Patch rows and columns at an input size."""
    if backbone.stride:
        return preprocess.size[0] // backbone.stride, preprocess.size[1] // backbone.stride
    height, width = backbone.forward(torch.zeros(1, 3, *preprocess.size)).patches.shape[1:3]
    return height, width


def fit_bundle_localizer(
    dataset: Dataset, embedder: Embedder, plan: LocalizerPlan, cache_dir: str | Path | None = None
) -> tuple[Localizer | None, dict]:
    """A localizer fitted on the annotated train and val pictures of a data set, measured on its annotated test ones.

    The record is plain JSON for metrics.json: what held-out pictures and test said, or why there is none.
    """
    reason = why_no_localizer(dataset)
    if reason:
        return None, {"not_fitted": reason}
    rows = annotated_rows(dataset, "train", "val")
    if len(rows) > MOST_PICTURES:
        rows = np.sort(np.random.default_rng(plan.seed).permutation(rows)[:MOST_PICTURES])
    chosen = dataset.select(rows)
    labels = lesion_labels(dataset, rows)
    layers = tuple(dict.fromkeys(layer for several in layer_sets(embedder.backbone) for layer in several))
    sides = {
        side: annotated_tokens(chosen, side, layers, labels, cache_dir, plan.progress) for side in trial_sides(embedder)
    }
    try:
        localizer = fit_localizer(sides, np.asarray(chosen["split"][:]), labels, plan)
    except DataError as error:
        return None, {"not_fitted": str(error)}
    fitted = localizer.config.fitted_on
    record = {
        "labels": labels,
        "pictures": fitted["pictures"],
        "chosen": fitted["chosen"],
        "held_out": {
            "name": localizer.config.measured_on,
            "hit_rate": localizer.config.hit_rate,
            "patch_average_precision": fitted["patch_average_precision"],
        },
    }
    test = annotated_rows(dataset, "test")
    if len(test):
        record |= measured_on_test(localizer, dataset.select(test), embedder, plan, cache_dir)
    return localizer, record


def measured_on_test(
    localizer: Localizer, test: Dataset, embedder: Embedder, plan: LocalizerPlan, cache_dir: str | Path | None
) -> dict:
    """Hit rate and average precision on annotated test pictures with a lesion; {} where there are none."""
    config = localizer.config
    side = replace(embedder, preprocess=config.preprocess)
    pictures = annotated_tokens(test, side, tuple(config.layers), config.labels, cache_dir, plan.progress)
    seen = np.flatnonzero(pictures.has_lesion)
    if not len(seen):
        return {}
    pictures = pictures.chosen(seen)
    linear = localizer.lesion_linear
    maps = raw_maps(pictures, tuple(config.layers), linear.weight[:1], linear.bias[:1])[:, 0]
    hits, precisions = point_scores(smoothed(maps, config.smoothing), pictures.areas)
    return {
        "test": {
            "hit_rate": figure(hits, pictures.groups, plan.seed),
            "patch_average_precision": figure(precisions, pictures.groups, plan.seed),
        }
    }


def describe_localizer(record: dict) -> str:
    """What became of the localizer, in one or two sentences."""
    if "not_fitted" in record:
        return f"Lesion map: none, {record['not_fitted']}."
    held = record["held_out"]
    rate = held["hit_rate"]
    said = (
        f"Lesion map: fitted on {record['pictures']} pictures; its maximum lies in the lesion at a rate of "
        f"{figure_text(rate)} on {rate['n']} {held['name']} pictures of {rate['groups']} groups (settings chosen on "
        "the other half of the groups)"
    )
    test = record.get("test")
    return said + (f", and {figure_text(test['hit_rate'])} on {test['hit_rate']['n']} test pictures." if test else ".")
