"""Measure a bundle: its own split and other tasks' images, with the metrics of medssl/metrics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from medssl.backbones.backbone import Backbone
from medssl.backbones.frames import DecodedFrames, Frames, pixel_batches
from medssl.bundle.bundle import Bundle
from medssl.bundle.group_rule import group_metrics
from medssl.data.labelled import Labelled
from medssl.errors import BundleError
from medssl.heads.calibration import nearest_similarity
from medssl.heads.head import ClassificationHead, Head
from medssl.library.fit_space import space_figures
from medssl.library.library import embedding_matrix
from medssl.metrics.classification import classification_metrics
from medssl.metrics.metric import flagged_share


def part_of(dataset: Dataset, split: str | None = None) -> Labelled:
    """The embeddings, labels and groups of a data set (of one split, where given)."""
    table = dataset.select_columns(["label", "group_id", "split"]).with_format("numpy")[:]
    keep = slice(None) if split is None else np.asarray(table["split"]) == split
    images = Labelled(embedding_matrix(dataset), np.asarray(table["label"]), np.asarray(table["group_id"]))
    return images.rows(keep)


@torch.inference_mode()
def image_probabilities(
    dataset: Dataset, head: Head, backbone: Backbone, progress: bool = True, frames: Frames | None = None
) -> torch.Tensor:
    """Calibrated probabilities `[N, C]` of an embedded data set: of its embeddings, or for a patch head of its images,
    encoded again in low precision, since embeddings do not hold patches.

    `frames` are the images in the model's frame where they are at hand; else the files are decoded.
    """
    if isinstance(head, ClassificationHead):
        return head.probabilities(torch.tensor(embedding_matrix(dataset)))
    batches, reader = [torch.zeros(0, len(head.labels))], backbone.reading(head.layer)
    overlap = backbone.device.type != "cpu"
    frames = frames or DecodedFrames(dataset, head.preprocess)
    with tqdm(total=len(dataset), desc="classify", unit="img", disable=not progress) as bar:
        batch = backbone.batch_size(head.preprocess)
        for pixels in pixel_batches(frames, head.preprocess, batch, overlap):
            batches.append(head.classify(reader.forward(torch.from_numpy(pixels), low_precision=True)))
            bar.update(len(pixels))
    return torch.cat(batches)


def query_probabilities(head: Head, queries: Labelled, probabilities: torch.Tensor | None) -> torch.Tensor:
    """The probabilities `[N, C]` given, or those of a linear head on the queries. Raises BundleError."""
    if probabilities is None:
        if not isinstance(head, ClassificationHead):
            raise BundleError(
                f"A head of kind {head.kind!r} cannot be measured from embeddings: hand in probabilities= from "
                "image_probabilities."
            )
        with torch.no_grad():
            probabilities = head.probabilities(torch.from_numpy(queries.embeddings))
    needed = [len(queries.labels), len(head.labels)]
    if list(probabilities.shape) != needed:
        raise BundleError(
            f"probabilities is {list(probabilities.shape)}; {needed[0]} queries of {needed[1]} labels need {needed}."
        )
    return probabilities


def unfamiliar_shares(
    head: Head, cases: Labelled, queries: Labelled, others: Mapping[str, Labelled], n_bootstrap: int, seed: int
) -> dict:
    """Which share of the queries (`own`) and of other tasks' images is flagged as unfamiliar, next to the train cases.

    {} for a head without a threshold: then no image is called familiar or unfamiliar.
    """
    thresholds = head.thresholds
    if thresholds.familiarity is None:
        return {}

    def flagged(part: Labelled) -> dict:
        flags = nearest_similarity(part, cases, thresholds.familiarity_neighbors) < thresholds.familiarity
        return flagged_share(flags, part.groups, n_bootstrap=n_bootstrap, seed=seed)

    return {"own": flagged(queries), "others": {name: flagged(part) for name, part in others.items()}}


def measure(
    bundle: Bundle,
    queries: Labelled,
    others: Mapping[str, Labelled] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
    probabilities: torch.Tensor | None = None,
) -> dict:
    """All figures of a bundle on labelled queries, each with a 95 % bootstrap interval over groups.

    `others` are images of other tasks (labels unused), to see how many are flagged unfamiliar. `retrieval` is in the
    space that the bundle compares cases in, `retrieval_plain` beside it in the plain one. `probabilities [N, C]` of the
    queries come from `image_probabilities`; a linear head needs none. `group_level` counts groups where all else counts
    images. Raises BundleError when they do not fit.
    """
    head, cases = bundle.head, part_of(bundle.cases, "train")
    probabilities = query_probabilities(head, queries, probabilities)
    return {
        "images": len(queries.labels),
        "groups": len(set(queries.groups)),
        "seed": seed,
        "resamples": n_bootstrap,
        "classification": classification_metrics(
            probabilities.numpy().astype(np.float64),
            queries.labels,
            queries.groups,
            head.labels,
            head.prediction_sets(probabilities).numpy(),
            n_bootstrap=n_bootstrap,
            seed=seed,
        ),
        "retrieval": space_figures(bundle.space, queries, cases, n_bootstrap, seed),
        **({} if bundle.space is None else {"retrieval_plain": space_figures(None, queries, cases, n_bootstrap, seed)}),
        "unfamiliar": unfamiliar_shares(head, cases, queries, others or {}, n_bootstrap, seed),
        "group_level": group_metrics(
            bundle.group_rule,
            probabilities.numpy().astype(np.float64),
            queries,
            head.labels,
            n_bootstrap,
            seed,
        ),
    }
