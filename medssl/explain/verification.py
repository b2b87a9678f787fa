"""Does one heatmap hold? Its pixels deleted and inserted, beside those of random maps on the same image."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from PIL import Image

from medssl.errors import DataError
from medssl.explain.explainer import Explainer, Progress
from medssl.explain.explanation import Explanation
from medssl.explain.faithfulness import (
    CURVE_METRICS,
    METRICS,
    STEPS,
    curve_passes,
    deletion_insertion,
    random_heatmap,
    shown_map,
)
from medssl.explain.score import Score, class_index, class_score

CONV_STRIDE = 32
BEATS_CHANCE = 0.9  # the share of random maps that a heatmap must beat to be called better than chance


@dataclass(frozen=True)
class AgainstRandom:
    """A heatmap's figure beside that of random maps: their mean and range, and the share of them that it beats.

    A tie counts half, so that a heatmap without knowledge beats about half of them.
    """

    value: float
    random_mean: float
    random_low: float
    random_high: float
    beats: float
    higher_is_better: bool


@dataclass(frozen=True)
class Verification:
    """How well one heatmap holds when its pixels are deleted and inserted, against random maps on the same image."""

    deletion: AgainstRandom
    insertion: AgainstRandom
    insertion_minus_deletion: AgainstRandom
    target: str
    random_maps: int
    steps: int
    seed: int
    forward_passes: int
    seconds: float

    @property
    def better_than_chance(self) -> bool:
        """Whether the heatmap beats nearly all of the random maps."""
        return self.insertion_minus_deletion.beats >= BEATS_CHANCE

    def to_dict(self) -> dict:
        """The fields in plain JSON types."""
        return asdict(self)


def against_random(value: float, control: np.ndarray, higher_is_better: bool) -> AgainstRandom:
    """One figure against those of random maps `[R]`."""
    better = value > control if higher_is_better else value < control
    beats = float((better + 0.5 * (control == value)).mean())
    spread = float(control.mean()), float(control.min()), float(control.max())
    return AgainstRandom(value, *spread, beats, higher_is_better)


class CountedScores:
    """Scores of altered pixels by an explainer, counted so that `progress(fraction)` of all passes can be told."""

    def __init__(self, explainer: Explainer, passes: int, progress: Progress | None) -> None:
        self.explainer, self.passes, self.progress, self.done = explainer, passes, progress, 0

    def __call__(self, score: Score, altered: torch.Tensor) -> torch.Tensor:
        """The scores `[B]` of pixels `[B, 3, H, W]`."""
        values = self.explainer.scores(score, altered)
        self.done += len(altered)
        if self.progress is not None:
            self.progress(min(1.0, self.done / self.passes))
        return values


def random_maps_like(explainer: Explainer, pixels: torch.Tensor, count: int, seed: int) -> list[np.ndarray]:
    """Random heatmaps `[H, W]` of pixels `[1, 3, H, W]`, as coarse as the backbone's own grid."""
    height, width = pixels.shape[-2:]
    stride = explainer.backbone.stride or CONV_STRIDE
    cells = (max(2, height // stride), max(2, width // stride))
    seeds = np.random.SeedSequence(seed).generate_state(count)
    return [random_heatmap(height, width, int(drawn), cells) for drawn in seeds]


def verify(
    explainer: Explainer,
    image: Image.Image,
    explanation: Explanation,
    score: Score | None = None,
    random_maps: int = 8,
    seed: int = 0,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> Verification:
    """Delete and insert the pixels of an RGB image in an explanation's order, and in that of random maps as coarse.

    `score` is what was explained; by default the class probability of the explanation's target. See
    `deletion_insertion` for baselines, steps and rule; takes `curve_passes(1 + random_maps, steps)` forwards, no
    gradients. `progress(fraction)` may raise to stop. Raises BundleError for a target that is no class, DataError for
    an explanation of another model frame.
    """
    if random_maps < 1:
        raise DataError(f"random_maps is {random_maps}; at least 1 is needed to compare with.")
    started = time.perf_counter()
    head = explainer.head
    if score is None:
        score = class_score(head, class_index(head, explanation.target, torch.zeros(len(head.labels))))
    pixels = explainer.backbone.pixels([image], head.preprocess)
    passes = curve_passes(1 + random_maps, steps)
    maps = [shown_map(explanation), *random_maps_like(explainer, pixels, random_maps, seed)]
    curves = deletion_insertion(CountedScores(explainer, passes, progress), score, pixels, maps, steps, seed)
    figures = {
        name: against_random(
            getattr(curves[0], name),
            np.array([getattr(curve, name) for curve in curves[1:]]),
            METRICS[name].higher_is_better,
        )
        for name in CURVE_METRICS
    }
    return Verification(
        **figures,
        target=score.name,
        random_maps=random_maps,
        steps=steps,
        seed=seed,
        forward_passes=passes,
        seconds=time.perf_counter() - started,
    )
