"""Fit a localizer to a few boxes or masks; blocks, input side, penalty, smoothing are chosen on held-out pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from tqdm.auto import tqdm

from medssl.backbones.backbone import Backbone, blocks
from medssl.backbones.embedder import Embedder
from medssl.backbones.patch_tokens import layer_name
from medssl.errors import DataError
from medssl.heads.fit_linear import versions
from medssl.heads.lesion_examples import AnnotatedTokens, LayerSet, draw_examples, fit_logistic, raw_maps
from medssl.heads.localizer import Localizer, LocalizerConfig, smoothed
from medssl.metrics.bootstrap import bounded_mean, number_groups

# Shares of the depth: middle blocks keep where a patch is, the last ones what it is; five together say both.
ALONE, TOGETHER = (7 / 12, 9 / 12), (5 / 12, 7 / 12, 9 / 12, 11 / 12, 1.0)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
SMOOTHINGS = (0.0, 0.5, 0.75, 1.0)
INSIDE = 0.5  # from which share of its area on a patch counts as lesion
FOLDS = 5
FEWEST_HELD_OUT = 10  # pictures with a lesion in validation; with fewer, train is folded
RESAMPLES = 1000


def lesion_patches(areas: np.ndarray) -> np.ndarray:
    """Bool `[N, P]`: patches that are lesion for at least half of their area `[N, P]`, or the fullest where none is."""
    found = areas >= INSIDE
    small = ~found.any(axis=1) & areas.any(axis=1)
    found[small, areas[small].argmax(axis=1)] = True
    return found


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """The mean precision at each positive `[P]`, best score first, ties as they stand; NaN without a positive."""
    hits = positive[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else float("nan")


def point_scores(maps: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of maps `[N, h, w]`: whether the highest patch touches the lesion, and the average precision, float64 `[N]`.

    To touch it is to have any of its area: the maximum then lies in the lesion or within half a patch of it.
    """
    flat, area = maps.reshape(len(maps), -1), areas.reshape(len(areas), -1)
    hits = area[np.arange(len(flat)), flat.argmax(axis=1)] > 0
    precisions = [average_precision(*pair) for pair in zip(flat, lesion_patches(area), strict=True)]
    return hits.astype(np.float64), np.array(precisions)


@dataclass(frozen=True)
class LesionFit:
    """One choice of settings, and what the held-out pictures with a lesion say of it: `hits`, `precisions [N]`."""

    embedder: Embedder
    layers: LayerSet
    penalty: float
    smoothing: float
    hits: np.ndarray
    precisions: np.ndarray

    def score(self, pictures: np.ndarray | slice = slice(None)) -> float:
        """What settings are chosen by: the mean of hit rate and average precision."""
        return float(self.hits[pictures].mean() + self.precisions[pictures].mean()) / 2

    def describe(self) -> dict:
        """The settings in plain JSON types."""
        return {
            "side": list(self.embedder.preprocess.size),
            "layers": [layer_name(layer) for layer in self.layers],
            "penalty": self.penalty,
            "smoothing": self.smoothing,
        }


@dataclass(frozen=True)
class LocalizerPlan:
    """What is tried for a localizer; None takes what `layer_sets` gives. `measured_on` names the held-out pictures."""

    layer_sets: Sequence[LayerSet] | None = None
    penalties: Sequence[float] = PENALTIES
    smoothings: Sequence[float] = SMOOTHINGS
    facts: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    progress: bool = True


@dataclass(frozen=True)
class HeldOut:
    """Which pictures are fitted on and which held out, in one fold or several; `final` are fitted on at the end."""

    folds: list[tuple[np.ndarray, np.ndarray]]
    final: np.ndarray
    name: str

    @classmethod
    def of(cls, splits: np.ndarray, has_lesion: np.ndarray, groups: np.ndarray, seed: int) -> HeldOut:
        """Validation where it has enough pictures with a lesion, else five folds of all of train by group.

        `splits [N]` holds "train" and "val". Raises DataError where there is only one group to fold.
        """
        train, validation = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "val")
        if has_lesion[validation].sum() >= FEWEST_HELD_OUT:
            return cls([(train, validation)], train, "validation")
        both = np.concatenate([train, validation])
        numbers = number_groups(groups[both])
        count = int(numbers.max()) + 1 if len(both) else 0
        if count < 2:
            raise DataError(f"The annotated pictures are of {count} group(s); two or more are needed to hold one out.")
        fold = np.random.default_rng(seed).permutation(count)[numbers] % FOLDS
        folds = [(both[fold != number], both[fold == number]) for number in np.unique(fold)]
        return cls(folds, both, "held-out training")

    @cached_property
    def pictures(self) -> np.ndarray:
        """The held-out pictures, fold after fold."""
        return np.concatenate([held for _, held in self.folds])


def layer_sets(backbone: Backbone) -> tuple[LayerSet, ...]:
    """The sets of layers worth a try: two middle blocks each alone, and five together; else the final tokens."""
    depth = len(blocks(backbone.model)) if backbone.has_cls else 0
    if not depth:
        return ((None,),)
    alone = [(max(1, round(share * depth)),) for share in ALONE]
    together = tuple(dict.fromkeys(max(1, round(share * depth)) for share in TOGETHER))
    return tuple(dict.fromkeys([*alone, together]))


def held_out_maps(
    pictures: AnnotatedTokens, held_out: HeldOut, layers: LayerSet, plan: LocalizerPlan
) -> dict[float, np.ndarray]:
    """Log-odds `[H, 1, h, w]` of any lesion in the held-out pictures for each penalty, by fits without them."""
    parts: dict[float, list[np.ndarray]] = {}
    for train, held in held_out.folds:
        fits = fit_logistic(draw_examples(pictures.chosen(train), layers, 0, plan.seed), plan.penalties)
        # One pass over the tokens serves all penalties.
        weights, biases = (torch.cat(values) for values in zip(*fits.values(), strict=True))
        maps = np.split(raw_maps(pictures.chosen(held), layers, weights, biases), len(fits), axis=1)
        for penalty, own in zip(fits, maps, strict=True):
            parts.setdefault(penalty, []).append(own)
    return {penalty: np.concatenate(maps) for penalty, maps in parts.items()}


def fit_chosen(
    pictures: AnnotatedTokens, held_out: HeldOut, best: LesionFit, classes: int, seed: int
) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Under the chosen settings: the held-out pictures' smoothed log-odds `[H, 1 + C, h, w]`, then the final weight
    `[1 + C, L * D]` and bias `[1 + C]`; one fit serves both where there is one fold.
    """

    def fit(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        examples = draw_examples(pictures.chosen(rows), best.layers, classes, seed)
        return fit_logistic(examples, [best.penalty])[best.penalty]

    parts = []
    for train, held in held_out.folds:
        fitted = fit(train)
        parts.append(raw_maps(pictures.chosen(held), best.layers, *fitted))
    if len(held_out.folds) > 1:
        fitted = fit(held_out.final)
    return smoothed(np.concatenate(parts), best.smoothing), *fitted


def try_settings(sides: Mapping[Embedder, AnnotatedTokens], held_out: HeldOut, plan: LocalizerPlan) -> list[LesionFit]:
    """Every side, set of layers, penalty and smoothing, as the held-out pictures with a lesion see them."""
    fits: list[LesionFit] = []
    for embedder, pictures, layers in tried(sides, plan):
        held = pictures.chosen(held_out.pictures)
        seen = held.has_lesion
        for penalty, maps in held_out_maps(pictures, held_out, layers, plan).items():
            for smoothing in plan.smoothings:
                scores = point_scores(smoothed(maps[seen, 0], smoothing), held.areas[seen])
                fits.append(LesionFit(embedder, layers, penalty, smoothing, *scores))
    return fits


def tried(
    sides: Mapping[Embedder, AnnotatedTokens], plan: LocalizerPlan
) -> Iterator[tuple[Embedder, AnnotatedTokens, LayerSet]]:
    """Each side with each set of layers, with a progress bar."""
    pairs = [
        (embedder, pictures, layers)
        for embedder, pictures in sides.items()
        for layers in plan.layer_sets or layer_sets(embedder.backbone)
    ]
    yield from tqdm(pairs, desc="localize", unit="fit", disable=not plan.progress)


def best_fit(fits: Sequence[LesionFit], pictures: np.ndarray | slice = slice(None)) -> LesionFit:
    """The settings of the best score on some of the held-out pictures; of equal ones the first."""
    return max(fits, key=lambda fit: fit.score(pictures))


def honest_scores(fits: Sequence[LesionFit], groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits and average precisions `[N]`, each picture's under the settings that the other half of the groups chooses.

    On the pictures that chose among them the best settings look better than they are.
    """
    numbers = number_groups(groups)
    count = int(numbers.max()) + 1
    if count < 2:
        best = best_fit(fits)
        return best.hits, best.precisions
    first = (np.random.default_rng(seed).permutation(count) % 2 == 0)[numbers]
    one, other = best_fit(fits, ~first), best_fit(fits, first)
    return np.where(first, one.hits, other.hits), np.where(first, one.precisions, other.precisions)


def figure(values: np.ndarray, groups: np.ndarray, seed: int) -> dict:
    """A mean of scores `[N]` with its 95 % interval over groups, as plain JSON."""
    value, low, high = bounded_mean(values, groups, None, RESAMPLES, seed)
    count = len(np.unique(groups))
    return {"value": value, "low": low, "high": high, "n": len(values), "groups": count}


def calibrate_maps(maps: np.ndarray, areas: np.ndarray) -> tuple[float, float]:
    """Slope and offset that make log-odds `[N, h, w]` say how much of a patch is lesion `[N, h, w]` (Platt 1999)."""
    logits, area = maps.ravel().astype(np.float64), areas.ravel().astype(np.float64)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = np.exp(values[0]) * logits
        total = scaled + values[1]
        wrong = 1 / (1 + np.exp(-np.clip(total, -60, 60))) - area
        return float((np.logaddexp(0, total) - area * total).mean()), np.array([(wrong * scaled).mean(), wrong.mean()])

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-3, 3), (-20, 20)])
    return float(np.exp(found.x[0])), float(found.x[1])


def calibration(maps: np.ndarray, held: AnnotatedTokens, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slope and offset `[1 + C]` of smoothed log-odds `[N, 1 + C, h, w]`; a class not held out takes the first."""
    pairs = [calibrate_maps(maps[:, 0], held.areas)]
    for number in range(classes):
        own = np.where((held.lesions == number)[:, None, None], held.areas, 0)
        pairs.append(calibrate_maps(maps[:, 1 + number], own) if own.any() else pairs[0])
    slope, offset = np.array(pairs, np.float32).T
    return torch.from_numpy(slope), torch.from_numpy(offset)


def fit_localizer(
    sides: Mapping[Embedder, AnnotatedTokens], splits: np.ndarray, labels: Sequence[str], plan: LocalizerPlan
) -> Localizer:
    """Fit a localizer on annotated pictures at one or several input sizes, the same pictures in the same order.

    `splits [N]` says which are "train" and which "val"; `labels` names the classes of lesions. Settings are chosen by
    the mean of hit rate and average precision on validation (or on folds of train, see `HeldOut`), the log-odds
    calibrated there, and the hit rate that is stored measured there under settings that other groups chose.
    Deterministic for a seed. Raises DataError where nothing can be held out.
    """
    first = next(iter(sides.values()))
    held_out = HeldOut.of(splits, first.has_lesion, first.groups, plan.seed)
    fits = try_settings(sides, held_out, plan)
    best, classes = best_fit(fits), len(labels)
    pictures, held = sides[best.embedder], sides[best.embedder].chosen(held_out.pictures)
    maps, weight, bias = fit_chosen(pictures, held_out, best, classes, plan.seed)
    slope, offset = calibration(maps, held, classes)
    groups = held.groups[held.has_lesion]
    hits, precisions = honest_scores(fits, groups, plan.seed)
    config = LocalizerConfig(
        labels=list(labels),
        backbone=best.embedder.backbone.describe(),
        preprocess=best.embedder.preprocess,
        layers=list(best.layers),
        smoothing=best.smoothing,
        hit_rate=figure(hits, groups, plan.seed),
        measured_on=held_out.name,
        fitted_on={
            **plan.facts,
            "method": "logistic regression on standardised patch tokens, the share of lesion as target",
            "chosen": best.describe(),
            "chosen_by": f"mean of hit rate and patch average precision on {held_out.name} pictures",
            "tried": len(fits),
            "patch_average_precision": figure(precisions, groups, plan.seed),
            "pictures": len(held_out.final),
            "lesions": {name: int((pictures.lesions[held_out.final] == i).sum()) for i, name in enumerate(labels)},
        },
        versions=versions(),
    )
    localizer = Localizer(config)
    localizer.lesion_linear.weight.copy_(slope[:, None] * weight)
    localizer.lesion_linear.bias.copy_(slope * bias + offset)
    return localizer.eval()
