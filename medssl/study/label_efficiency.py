"""Label efficiency: the heads fitted on a share of the training groups, several times over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medssl.data.labelled import Labelled
from medssl.errors import DataError
from medssl.study.probes import score_classifiers
from medssl.study.runs import BY_GROUP, Run

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
DRAWS = 5


def taking_order(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """The groups in the order in which they are taken, so that every beginning holds the classes in about their shares.

    A group counts for its most frequent label. Within a label the order is random; the g-th of a label's G groups
    stands at (g + u) / G, u random.
    """
    rng = np.random.default_rng(seed)
    names, numbers = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), int)
    np.add.at(counts, (numbers, labels), 1)
    of_group = counts.argmax(axis=1)
    places = np.empty(len(names))
    for label in np.unique(of_group):
        members = rng.permutation(np.flatnonzero(of_group == label))
        places[members] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    return names[np.argsort(places, kind="stable")]


def sub_sample(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which images [N] a share of the groups keeps: bool; whole groups, at least one image of every class.

    Of one seed the samples are nested: what a smaller share keeps, a larger one keeps too. A class that the share
    leaves out comes back with the first of its groups in the order. Raises DataError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise DataError(f"A share of the training groups of {share} is not possible. Allowed: above 0, at most 1.")
    order = taking_order(labels, groups, seed)
    taken = set(order[: max(1, round(share * len(order)))].tolist())
    place = {name: index for index, name in enumerate(order.tolist())}
    for label in np.unique(labels):
        own = set(groups[labels == label].tolist())
        # Not "unless one was taken for another class": what a larger share adds must not undo what a smaller one took.
        taken.add(min(own, key=place.__getitem__))
    return np.isin(groups, list(taken))


def label_efficiency(
    train: Labelled,
    validation: Labelled,
    test: Labelled,
    test_rows: np.ndarray,
    classes: int,
    shares: Sequence[float],
    seeds: range,
) -> list[Run]:
    """One run for each share below 1 and each seed, with all of validation to choose C and k on. Raises DataError."""
    runs = []
    for share in shares:
        for seed in seeds if share < 1 else ():
            keep = sub_sample(train.labels, train.groups, share, seed)
            part = train.rows(keep)
            found = score_classifiers(part, validation, test, classes)
            images, groups = int(keep.sum()), len(set(part.groups))
            runs.append(Run(BY_GROUP, share, seed, images, groups, test_rows, found))
    return runs
