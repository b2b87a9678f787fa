"""Does a heatmap show what decides the class? Deletion and insertion, and two pointing games, with a random control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, zoom

from medssl.errors import DataError
from medssl.explain.explanation import Explanation
from medssl.explain.score import Score

RANDOM_CELLS = 16
STEPS = 14  # on a grid of 14 x 14 patches each step is one row's worth of them
BLUR = 0.05  # sigma of insertion's start, of the shorter side: 11 of 224 pixels
AT_ONCE = 32  # altered images that exist at the same time

Scores = Callable[[Score, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Metric:
    """What a figure about heatmaps is, which way is better, and where it comes from."""

    name: str
    title: str
    higher_is_better: bool
    paper: str


RISE_PAPER = "Petsiuk et al. 2018, arXiv 1806.07421"
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("deletion", "deletion", False, RISE_PAPER),
        Metric("insertion", "insertion", True, RISE_PAPER),
        Metric("insertion_minus_deletion", "insertion minus deletion", True, RISE_PAPER),
        Metric("pointing", "pointing game", True, "Zhang et al. 2018, arXiv 1608.00507"),
        Metric("energy", "energy in box", True, "Wang et al. 2020 (Score-CAM), arXiv 1910.01279"),
        Metric("randomisation", "likeness under random weights", False, "Adebayo et al. 2018, arXiv 1810.03292"),
    )
}
CURVE_METRICS = ("deletion", "insertion", "insertion_minus_deletion")


@dataclass(frozen=True)
class Curves:
    """The score along the deletion and the insertion of an image's pixels, most salient first.

    `shares [S + 1]` run from 0 to 1; `deletion_scores` and `insertion_scores [S + 1]` include both end points. The
    areas under them are `deletion`, `insertion` and their difference, by the trapezoidal rule.
    """

    shares: np.ndarray
    deletion_scores: np.ndarray
    insertion_scores: np.ndarray

    @property
    def deletion(self) -> float:
        """The area under the deletion curve; lower is better."""
        return area(self.shares, self.deletion_scores)

    @property
    def insertion(self) -> float:
        """The area under the insertion curve; higher is better."""
        return area(self.shares, self.insertion_scores)

    @property
    def insertion_minus_deletion(self) -> float:
        """Insertion less deletion; higher is better. A random map's is seldom 0: read it beside one."""
        return self.insertion - self.deletion


def area(shares: np.ndarray, scores: np.ndarray) -> float:
    """The area under scores `[S + 1]` over rising shares `[S + 1]` by the trapezoidal rule, float64."""
    return float(np.trapezoid(scores, shares))


def ranks(saliency: np.ndarray, seed: int = 0) -> np.ndarray:
    """Each pixel's place `[h, w]`, 0 for the most salient of `[h, w]`.

    Ties are broken by a seeded smooth random map, which prefers no position. By single pixels it would reward ties:
    deleting pixels here and there wrecks an image faster than deleting a region.
    """
    height, width = saliency.shape
    random = np.random.default_rng(seed).permutation(height * width)
    ties = random_heatmap(height, width, seed).ravel()
    order = np.lexsort((random, -ties, -saliency.ravel().astype(np.float64)))
    places = np.empty(height * width, np.int64)
    places[order] = np.arange(height * width)
    return places.reshape(height, width)


def deletion_insertion(
    scores: Scores,
    score: Score,
    pixels: torch.Tensor,
    maps: np.ndarray | Sequence[np.ndarray],
    steps: int = STEPS,
    seed: int = 0,
) -> list[Curves]:
    """The Curves of each of M saliency maps `[M, h, w]` of one image `[1, 3, h, w]` in normalised pixels.

    Petsiuk et al. 2018, arXiv 1806.07421. Deletion (lower is better) puts the model's mean colour, 0, in the place of
    the most salient pixels, in `steps` equal shares; insertion (higher is better) puts them back into the image blurred
    by a Gaussian of BLUR of its shorter side. Areas by the trapezoidal rule, both end points included. Ties: see
    `ranks`. `scores(score, pixels [B, 3, h, w]) -> [B]`, such as `Explainer.scores`, sees at most AT_ONCE images a
    call; `curve_passes(M, steps)` in all. Raises DataError for shapes that do not match, maps that are not finite, or
    steps.
    """
    maps = [np.asarray(values) for values in maps]
    if pixels.ndim != 4 or len(pixels) != 1:
        raise DataError(f"The pixels are {list(pixels.shape)}; one image is [1, 3, height, width].")
    height, width = pixels.shape[-2:]
    for values in maps:
        if values.shape != (height, width):
            raise DataError(
                f"A saliency map is {values.shape} and the model's pixels {(height, width)}; give the same."
            )
        if not np.isfinite(values).all():
            raise DataError("A saliency map holds NaN or infinity; it must be finite everywhere.")
    if not 1 <= steps <= height * width:
        raise DataError(f"steps is {steps}; allowed: 1 to the number of pixels, {height * width}.")
    counts = np.round(np.arange(steps + 1) * (height * width / steps)).astype(int)
    mean, blurred = torch.zeros_like(pixels), blur(pixels)
    places = [torch.from_numpy(ranks(values, seed)) for values in maps]
    jobs = [(number, kind, step) for number in range(len(maps)) for kind in (0, 1) for step in range(1, steps)]
    whole, empty, dim = scores(score, torch.cat([pixels, mean, blurred])).tolist()
    found = np.empty((len(maps), 2, steps + 1))
    found[:, 0, 0], found[:, 0, -1] = whole, empty
    found[:, 1, 0], found[:, 1, -1] = dim, whole
    for start in range(0, len(jobs), AT_ONCE):
        part = jobs[start : start + AT_ONCE]
        altered = []
        for number, kind, step in part:
            taken = places[number] < int(counts[step])
            altered.append(torch.where(taken, pixels, blurred) if kind else torch.where(taken, mean, pixels))
        for job, value in zip(part, scores(score, torch.cat(altered)).tolist(), strict=True):
            found[job] = value
    return [Curves(counts / (height * width), *values) for values in found]


def curve_passes(maps: int, steps: int = STEPS) -> int:
    """How many forwards `deletion_insertion` takes: the three end points are shared by all maps."""
    return 3 + 2 * maps * (steps - 1)


def blur(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels `[1, 3, h, w]` under a Gaussian of BLUR of their shorter side, edges mirrored."""
    sigma = BLUR * min(pixels.shape[-2:])
    return torch.from_numpy(gaussian_filter(pixels.cpu().numpy(), (0, 0, sigma, sigma), mode="reflect")).to(pixels)


def shown_map(explanation: Explanation) -> np.ndarray:
    """The map `[h, w]` that an explanation shows, in the model's frame: all zero where it found no evidence."""
    return explanation.saliency if explanation.evidence else np.zeros_like(explanation.saliency)


def check_mask(heatmap: np.ndarray, mask: np.ndarray) -> None:
    """Raise DataError where a heatmap and a mask do not match or the mask is empty."""
    if heatmap.shape != mask.shape:
        raise DataError(f"The heatmap is {heatmap.shape} and the mask {mask.shape}; both must be [height, width].")
    if not mask.any():
        raise DataError("The mask is empty: there is nothing to point at. Leave this image out.")


def pointing_hit(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """1 where the heatmap's maximum `[H, W]` lies inside the bool mask `[H, W]`, else 0 (Zhang et al. 2018).

    Where several pixels share the maximum it is their share inside, so that a flat map scores as chance. Higher is
    better; no baseline, no steps. arXiv 1608.00507. Raises DataError for shapes that differ or an empty mask.
    """
    check_mask(heatmap, mask)
    return float(mask[heatmap == heatmap.max()].mean())


def energy_inside(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """The share of the heatmap's sum `[H, W]` that lies inside the bool mask `[H, W]` (Wang et al. 2020).

    The energy-based pointing game of Score-CAM, arXiv 1910.01279. Higher is better; a flat map, and one that is all
    zero, scores the mask's area, which is chance; no baseline, no steps. Raises DataError for shapes that differ, an
    empty mask, or values below zero.
    """
    check_mask(heatmap, mask)
    total = float(heatmap.sum(dtype=np.float64))
    if not np.isfinite(total) or heatmap.min() < 0:
        raise DataError("The heatmap holds negative or not finite values; its energy needs values from 0 up.")
    return float(heatmap[mask].sum(dtype=np.float64)) / total if total > 0 else float(mask.mean())


def box_mask(box: Sequence[float], height: int, width: int) -> np.ndarray:
    """A box (left, top, right, bottom), fractions of width and height, as a bool mask `[height, width]`.

    A pixel is inside where its middle is; a box without any holds the pixel at its own middle. Raises DataError.
    """
    left, top, right, bottom = (float(value) for value in box)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise DataError(
            f"The box left, top, right, bottom is {(left, top, right, bottom)}. Allowed: fractions in 0..1, left below "
            "right and top below bottom."
        )

    def inside(low: float, high: float, size: int) -> np.ndarray:
        middles = (np.arange(size) + 0.5) / size
        found = (middles >= low) & (middles < high)
        if not found.any():
            found[min(size - 1, int((low + high) / 2 * size))] = True
        return found

    return inside(top, bottom, height)[:, None] & inside(left, right, width)[None]


def random_heatmap(height: int, width: int, seed: int, cells: tuple[int, int] = (RANDOM_CELLS,) * 2) -> np.ndarray:
    """The control: smooth noise `[height, width]` in 0 to 1, of about a patch grid's coarseness, without any image."""
    coarse = np.random.default_rng(seed).random(cells)
    fine = gaussian_filter(zoom(coarse, (height / cells[0], width / cells[1]), order=1), 1)
    fine = fine[:height, :width]
    return ((fine - fine.min()) / (fine.max() - fine.min())).astype(np.float32)
