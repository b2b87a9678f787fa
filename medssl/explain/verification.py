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

    def to_dict(self) -> dict:
        """The fields in plain JSON types."""
        return asdict(self)


def against_random(value: float, control: np.ndarray, higher_is_better: bool) -> AgainstRandom:
    """One figure against those of random maps `[R]`."""
    better = value > control if higher_is_better else value < control
    beats = float((better + 0.5 * (control == value)).mean())
    spread = float(control.mean()), float(control.min()), float(control.max())
    return AgainstRandom(value, *spread, beats, higher_is_better)


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
    head, backbone = explainer.head, explainer.backbone
    if score is None:
        score = class_score(head, class_index(head, explanation.target, torch.zeros(len(head.labels))))
    pixels = backbone.pixels([image], head.preprocess)
    height, width = pixels.shape[-2:]
    stride = backbone.stride or CONV_STRIDE
    cells = (max(2, height // stride), max(2, width // stride))
    passes, done = curve_passes(1 + random_maps, steps), 0

    def counted(score: Score, altered: torch.Tensor) -> torch.Tensor:
        nonlocal done
        values = explainer.scores(score, altered)
        done += len(altered)
        if progress is not None:
            progress(min(1.0, done / passes))
        return values

    seeds = np.random.SeedSequence(seed).generate_state(random_maps)
    maps = [shown_map(explanation), *(random_heatmap(height, width, int(drawn), cells) for drawn in seeds)]
    curves = deletion_insertion(counted, score, pixels, maps, steps, seed)
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
