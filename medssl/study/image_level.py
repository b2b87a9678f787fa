"""The paper's own protocol: images split at random, heedless of patients and slides, to see what leakage flatters."""

from __future__ import annotations

import numpy as np

from medssl.audit.neighbors import image_level_split
from medssl.data.labelled import Labelled
from medssl.data.rows import SPLITS
from medssl.study.probes import score_heads
from medssl.study.runs import BY_IMAGE, Run


def image_level_run(
    vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray, splits: np.ndarray, classes: int, seed: int
) -> Run:
    """All heads on embeddings `[N, D]` whose given `splits` [N] are shuffled within each class: the same sizes.

    Every image counts as a group of its own, so that no case is left out of kNN or of the search, as whoever splits by
    image does not leave it out either.
    """
    drawn = image_level_split(labels, splits, seed)
    alone = np.arange(len(labels)).astype(str)
    sides = [np.flatnonzero(drawn == name) for name in SPLITS]
    images = Labelled(vectors, labels, alone)
    train, validation, test = (images.rows(rows) for rows in sides)
    found = score_heads(train, validation, test, classes)
    return Run(BY_IMAGE, 1.0, seed, len(sides[0]), len(set(groups[sides[0]])), sides[2], found)
