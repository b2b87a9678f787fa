"""Put every row in train, val or test, whole groups together."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from sklearn.model_selection import StratifiedGroupKFold

from medssl.data.rows import SPLITS, TEXT
from medssl.errors import DataError

# Groups times classes up to which scikit-learn splits in a moment.
MANY_CELLS = 2_000_000


def split_data(
    dataset: Dataset,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    same: Sequence[str] | None = None,
) -> Dataset:
    """The data set with every row in train, val or test: given splits are kept, missing ones are made.

    Whole groups move together, classes stay balanced, the same seed gives the same split. Exact copies stay on one side
    too: rows of equal `same` (by default a hash of the file's bytes; "" is like nothing else) tie their groups
    together. Raises DataError when a class would be missing from a side, or when only some rows have a split.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"The fractions {tuple(fractions)} must be three numbers above 0 that sum to 1.")
    splits = np.array(dataset["split"][:], dtype=object)
    labels, groups = np.array(dataset["label"][:]), np.array(dataset["group_id"][:], dtype=str)
    given = {name for name in splits if name}
    if given and "" in splits:
        raise DataError(
            f"{int((splits == '').sum())} of {len(splits)} rows have no split and the others have; give all or none."
        )
    if given and "train" not in given:
        raise DataError(f"The splits given are {', '.join(sorted(given))}; train is missing. Name it, or give none.")
    if not given:
        splits[:] = "train"
    if {"val", "test"} - given:
        groups = tied_groups(groups, content_keys(dataset) if same is None else same)
    shares = {name: share for name, share in zip(SPLITS, fractions, strict=True) if name not in given - {"train"}}
    for name in ("test", "val"):
        if name not in given:
            # What is still in train has to last for all splits that are yet to be made.
            move(splits, labels, groups, name, shares[name] / sum(shares.values()), seed)
            del shares[name]
    names = dataset.features["label"].names
    for split in SPLITS:
        present = set(labels[splits == split].tolist())
        absent = [name for index, name in enumerate(names) if index not in present]
        if absent:
            raise DataError(
                f"The {split} split has no image of {', '.join(absent[:10])}. Every class needs images of at least "
                "three groups, or a split column that puts it in train, val and test."
            )
    return dataset.remove_columns("split").add_column("split", splits.tolist(), feature=TEXT)


def content_keys(dataset: Dataset) -> list[str]:
    """A hash of each row's file, "" where there is none to read."""
    keys: list[str] = []
    if "image" not in dataset.column_names:
        return [""] * len(dataset)
    for record in dataset.select_columns(["image"]):
        image = record["image"]
        try:
            data = image["bytes"] if image["bytes"] is not None else Path(image["path"] or "").read_bytes()
        except OSError:
            data = b""
        keys.append(hashlib.sha256(data).hexdigest() if data else "")
    return keys


def tied_groups(groups: np.ndarray, same: Sequence[str]) -> np.ndarray:
    """The groups `[N]`, those that share a key of `same` under one name."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name] = parent[parent[name]]
        return name

    first: dict[str, str] = {}
    for group, key in zip(groups, same, strict=True):
        if key:
            one, other = root(first.setdefault(key, group)), root(group)
            parent[max(one, other)] = min(one, other)
    return np.array([root(group) for group in groups], dtype=str)


def fold_indices(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """The rows of each of several folds: whole groups, classes balanced, seeded."""
    folder = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds: judged by `move`
        return [fold for _, fold in folder.split(labels, labels, groups)]


def folds_by_class(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """The same, class after class: a group counts as of its most frequent class, and goes where that has the fewest.

    scikit-learn weighs every group against every class and fold, which takes hours for thousands of classes, and with
    few groups of a class its older versions may leave a fold without it.
    """
    names, members = np.unique(groups, return_inverse=True)
    order = np.lexsort((labels, members))
    starts = np.flatnonzero(np.r_[True, np.diff(members[order]) > 0])
    sizes = np.diff(np.r_[starts, len(order)])
    kinds = np.array([np.bincount(part).argmax() for part in np.split(labels[order], starts[1:])])
    rank = np.random.default_rng(seed).permutation(len(names))
    fold_of = np.zeros(len(names), int)
    for kind in np.unique(kinds):
        held = np.zeros(folds, int)
        mine = np.flatnonzero(kinds == kind)
        for group in mine[np.lexsort((rank[mine], -sizes[mine]))]:
            # The first of equal folds is another for each class, so that small classes do not all fill the first.
            fold = min(range(folds), key=lambda index: (held[index], (index - kind) % folds))
            held[fold] += sizes[group]
            fold_of[group] = fold
    return [np.flatnonzero(fold_of[members] == fold) for fold in range(folds)]


def move(splits: np.ndarray, labels: np.ndarray, groups: np.ndarray, to: str, fraction: float, seed: int) -> None:
    """Move about `fraction` of the training rows, whole groups, stratified by label, into split `to` (in place)."""
    train = np.flatnonzero(splits == "train")
    folds = max(2, round(1 / fraction))
    # Rows sorted by group make the split independent of the order the files were listed in.
    order = train[np.lexsort((labels[train], groups[train]))]
    y = labels[order]
    counts = np.bincount(y)
    if len(set(groups[train])) < folds:
        raise DataError(
            f"{len(set(groups[train]))} groups ({len(train)} images) are too few for a {to} split of {fraction:.0%}, "
            f"which needs {folds}. Add groups, or give a split column."
        )
    if counts.max() < folds:
        raise DataError(
            f"Every class has too few images for a {to} split of {fraction:.0%}: the largest has {counts.max()}, and "
            f"{folds} are needed. Add images, or give a split column."
        )

    def cost(fold: np.ndarray) -> tuple[int, float]:
        """Classes that this fold would take or leave nothing of, then how far it is from the fraction, per class."""
        taken = np.bincount(y[fold], minlength=len(counts))
        lost = int(((taken == 0) | (taken == counts))[counts > 0].sum())
        return lost, float(np.abs(taken / np.maximum(counts, 1) - fraction).sum())

    many = len(set(groups[train])) * len(counts) > MANY_CELLS
    # Large groups make folds uneven; the best of them, and not the first, is the split.
    best = min((folds_by_class if many else fold_indices)(y, groups[order], folds, seed), key=cost)
    if not many and cost(best)[0]:
        best = min([best, *folds_by_class(y, groups[order], folds, seed)], key=cost)
    splits[order[best]] = to
