"""Shortcuts: how well facts that say nothing of the disease predict the label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from medssl.metrics.bootstrap import bounded_mean

SIDE = 64
RIM = 3  # px of the 64 that count as border
FRAME_SIDE = 8  # the frame is seen in 8 x 8 blocks
DARK = 0.06  # of white; the ground that a camera or scanner leaves round the picture is darker, JPEG noise and all
TREES = 30
FOLDS = 5
RESAMPLES = 1000
FRAME, SOURCE = "frame", "source"
EVERYTHING = "size, colour, border"


@dataclass(frozen=True)
class Shortcut:
    """How well one set of trivial features predicts the label; `auroc` is each class against the rest.

    `low` and `high` are the 95 % bootstrap interval of the balanced accuracy over groups.
    """

    name: str
    balanced_accuracy: float
    chance: float
    auroc: dict[str, float]
    low: float
    high: float

    @property
    def excess(self) -> float:
        """0 at chance, 1 when the label follows from the features."""
        return (self.balanced_accuracy - self.chance) / (1 - self.chance)

    @property
    def best_class(self) -> str:
        """The class that the features tell apart best."""
        return max(self.auroc, key=self.auroc.__getitem__)


def trivial_features(image: Image.Image) -> dict[str, np.ndarray]:
    """Feature sets by name, each [F] float64, of an RGB image.

    `frame` is the share of dark pixels in each of 8 x 8 blocks: the shape of the ground that a camera leaves round its
    picture, and not what the picture shows.
    """
    width, height = image.size
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64) / 255
    sides = (pixels[:RIM], pixels[-RIM:], pixels[:, :RIM], pixels[:, -RIM:])
    corners = [pixels[y : y + 8, x : x + 8].mean((0, 1)) for y in (0, SIDE - 8) for x in (0, SIDE - 8)]
    levels = np.minimum((pixels * 8).astype(int), 7).reshape(-1, 3)
    block = SIDE // FRAME_SIDE
    dark = (pixels.mean(axis=2) < DARK).reshape(FRAME_SIDE, block, FRAME_SIDE, block)
    return {
        "image size": np.array([width, height, width / height, width * height]),
        "mean colour": np.concatenate([pixels.mean((0, 1)), pixels.std((0, 1))]),
        "colour histogram": np.concatenate([np.bincount(levels[:, c], minlength=8) for c in range(3)]) / SIDE**2,
        "border": np.concatenate([part.reshape(-1, 3).mean(0) for part in sides] + [sides[0].std((0, 1)), *corners]),
        FRAME: dark.mean((1, 3)).ravel(),
    }


def probe_features(
    features: list[dict[str, np.ndarray]], labels: np.ndarray, groups: np.ndarray, names: list[str], seed: int
) -> list[Shortcut]:
    """One shortcut for each feature set and one for all but the frame together; [] where the data is too small."""
    if not features:
        return []
    tables = {name: np.stack([item[name] for item in features]) for name in features[0]}
    tables[EVERYTHING] = np.concatenate([table for name, table in tables.items() if name != FRAME], axis=1)
    sides = folds(labels, groups, seed)
    return [probe(name, table, labels, groups, sides, names, seed) for name, table in tables.items()] if sides else []


def probe_sources(
    sources: np.ndarray, labels: np.ndarray, groups: np.ndarray, names: list[str], seed: int
) -> list[Shortcut]:
    """How well the `source` column predicts the label; [] when there is one source only, or too little data."""
    kinds, codes = np.unique(sources, return_inverse=True)
    sides = folds(labels, groups, seed) if len(kinds) > 1 else []
    if not sides:
        return []
    # One column a source; a source per image says nothing about an unseen one, so the rare ones share a column.
    common = np.flatnonzero(np.bincount(codes) >= FOLDS)
    table = (codes[:, None] == common[None, :]).astype(np.float64)
    table = np.concatenate([table, 1 - table.sum(1, keepdims=True)], axis=1)
    return [probe(SOURCE, table, labels, groups, sides, names, seed)]


def folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Grouped, stratified (train, test) index pairs; [] when a class has fewer than two groups."""
    present = np.unique(labels)
    count = min((len(np.unique(groups[labels == label])) for label in present), default=0)
    if len(present) < 2 or count < 2:
        return []
    splitter = StratifiedGroupKFold(min(FOLDS, count), shuffle=True, random_state=seed)
    sides = list(splitter.split(labels, labels, groups))
    whole = all(len(np.unique(labels[train])) == len(present) for train, _ in sides)
    return sides if whole else []


def probe(
    name: str,
    table: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    sides: list[tuple[np.ndarray, np.ndarray]],
    names: list[str],
    seed: int,
) -> Shortcut:
    """Cross-validated balanced accuracy and AUROC of a small forest on features [N, F].

    A forest and not a line: "exactly 240 px wide" is as much of a shortcut as "wider". The interval is of the
    predictions as they are; that the forests could have been fitted otherwise is not in it.
    """
    present = np.unique(labels)
    chances = np.zeros((len(labels), len(present)))
    for train, test in sides:
        forest = ExtraTreesClassifier(TREES, min_samples_leaf=3, class_weight="balanced", random_state=seed)
        chances[test] = forest.fit(table[train], labels[train]).predict_proba(table[test])
    correct = present[chances.argmax(axis=1)] == labels
    accuracy, low, high = bounded_mean(correct, groups, labels, RESAMPLES, seed)
    auroc = {names[label]: float(roc_auc_score(labels == label, chances[:, i])) for i, label in enumerate(present)}
    return Shortcut(name, accuracy, 1 / len(present), auroc, low, high)
