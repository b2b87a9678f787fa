"""Label efficiency of tuning: an encoder tuned on a share of the training groups, beside itself frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from datasets import Dataset

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.bundle.measure import part_of
from medssl.data.labelled import Labelled
from medssl.data.rows import SPLITS, TEXT
from medssl.data.tasks import Task
from medssl.metrics.paired import paired_difference
from medssl.pretrain.finetune import FineTuneOptions, finetune_split
from medssl.pretrain.finetune_recipe import FineTuneRecipe
from medssl.study.label_efficiency import sub_sample
from medssl.study.probes import score_linear

NOT_DRAWN = "not drawn"  # the split of training images that a share leaves out


@dataclass(frozen=True)
class TunedShare:
    """One share of the training groups over all draws: mean training images, and the accuracy of linear heads on test.

    `frozen` and `tuned` are means over images and draws, `gap` is the paired difference of each image's means.
    """

    share: float
    draws: int
    train_images: float
    frozen: float
    tuned: float
    gap: dict


def sampled(dataset: Dataset, share: float, draw: int) -> Dataset:
    """A split data set whose train split is cut to a share of its groups, drawn with a seed; see `sub_sample`."""
    splits = np.asarray(dataset["split"][:], dtype=object)
    rows = np.flatnonzero(splits == "train")
    labels, groups = np.asarray(dataset["label"][:])[rows], np.asarray(dataset["group_id"][:], dtype=str)[rows]
    splits[rows[~sub_sample(labels, groups, share, draw)]] = NOT_DRAWN
    return dataset.remove_columns("split").add_column("split", splits.tolist(), feature=TEXT)


def sides_of(dataset: Dataset, embedder: Embedder, cache_dir: str | Path | None) -> tuple[Labelled, Labelled, Labelled]:
    """Train, validation and test of a split data set under an encoder."""
    embedded = embedder.embed(dataset, cache_dir, progress=False)
    train, validation, test = (part_of(embedded, split) for split in SPLITS)
    return train, validation, test


def tuned_efficiency(
    dataset: Dataset,
    task: Task,
    backbone: Backbone,
    folder: Path,
    recipe: FineTuneRecipe,
    options: FineTuneOptions | None = None,
    shares: Sequence[float] = (0.05, 0.1, 0.25, 1.0),
    draws: int = 1,
) -> list[TunedShare]:
    """Tune on each share of the training groups of a split data set, and compare on test with the frozen encoder.

    Both have linear heads fitted on the same sample, with all of validation to choose on. Each tuned encoder stays in
    `folder`, where a second call goes on. Raises DataError, PretrainError, and KeyboardInterrupt where it was stopped.
    """
    options, found = options or FineTuneOptions(), []
    first = Embedder.of(backbone, options.preprocess)
    for share in shares:
        scores: list[tuple[np.ndarray, np.ndarray]] = []
        images = []
        for draw in range(recipe.seed, recipe.seed + (draws if share < 1 else 1)):
            part, out = sampled(dataset, share, draw), folder / f"share-{share:g}-draw-{draw}"
            tuned = finetune_split(part, task, task.name, backbone, out, replace(recipe, seed=draw), options)
            if tuned.stopped:
                raise KeyboardInterrupt
            frozen = replace(first, pooling=tuned.facts["pooling"])  # the reading that was tuned
            encoders = (frozen, replace(frozen, backbone=Backbone.from_pretrained(tuned.folder)))
            both = [sides_of(part, encoder, folder / "cache") for encoder in encoders]
            one, other = (score_linear(*sides, len(task.labels)).scores for sides in both)
            scores.append((one, other))
            images.append(len(both[0][0]))
            test = both[0][2]
        plain, adapted = (np.mean([pair[side] for pair in scores], axis=0) for side in (0, 1))
        gap = paired_difference(adapted, plain, test.groups, seed=recipe.seed)
        means = float(np.mean(images)), float(plain.mean()), float(adapted.mean())
        found.append(TunedShare(share, len(scores), *means, gap))
    return found
