"""Measure a bundle: its own split and other tasks' images, with the metrics of evaluation.py."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from datasets import Dataset

from medssl.bundle import Bundle
from medssl.evaluation import classification_metrics, retrieval_metrics, share
from medssl.library import embedding_matrix
from medssl.training import Part, nearest_similarity


def part_of(dataset: Dataset, split: str | None = None) -> Part:
    """The embeddings, labels and groups of a data set (of one split, where given)."""
    table = dataset.select_columns(["label", "group_id", "split"]).with_format("numpy")[:]
    keep = slice(None) if split is None else np.asarray(table["split"]) == split
    return Part(
        embedding_matrix(dataset)[keep],
        np.asarray(table["label"])[keep],
        np.asarray(table["group_id"])[keep],
    )


def measure(
    bundle: Bundle, queries: Part, others: Mapping[str, Part] | None = None, n_bootstrap: int = 1000, seed: int = 0
) -> dict:
    """All figures of a bundle on labelled queries, each with a 95 % bootstrap interval over groups.

    `others` are images of other tasks (labels unused), to see how many are flagged unfamiliar.
    """
    head = bundle.head
    cases = part_of(bundle.cases, "train")
    with torch.no_grad():
        probabilities = head.probabilities(torch.from_numpy(queries.embeddings))
        sets = head.prediction_sets(probabilities).numpy()
    threshold = head.thresholds.get("familiarity", -1.0)
    neighbours = head.thresholds.get("familiarity_neighbours", 5)

    def unfamiliar(part: Part) -> dict:
        flags = nearest_similarity(part, cases, neighbours) < threshold
        return share(flags, part.groups, n_bootstrap=n_bootstrap, seed=seed)

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
            sets,
            n_bootstrap=n_bootstrap,
            seed=seed,
        ),
        "retrieval": retrieval_metrics(
            queries.embeddings,
            queries.labels,
            queries.groups,
            cases.embeddings,
            cases.labels,
            cases.groups,
            n_bootstrap=n_bootstrap,
            seed=seed,
        ),
        "unfamiliar": {
            "own": unfamiliar(queries),
            "others": {name: unfamiliar(part) for name, part in (others or {}).items()},
        },
    }
