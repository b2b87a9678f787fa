"""Where a localizer sees a lesion in one picture: another question than what moved the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import find_objects, label

from medssl.metrics.metric import figure_text

PART = 0.5  # of the maximum: how far the region round it reaches
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class LesionMap:
    """Each pixel's probability to lie in a lesion: `heatmap [H, W]` float32 in 0..1, in the picture's own frame.

    `patches [h, w]` are the probabilities on the model's grid, `target` the class of lesion ("" for any),
    `probability` that of the most probable patch, `point` (x, y) where it is and `box` (left, top, right, bottom) round
    the connected region of at least half of it, all in fractions of width and height. `hit_rate` is how often that
    point lay in the lesion, as measured when the localizer was fitted, on pictures that have one; `measured_on` says
    which.
    """

    heatmap: np.ndarray
    patches: np.ndarray
    target: str
    probability: float
    point: tuple[float, float]
    box: Box
    hit_rate: Mapping = field(default_factory=dict)
    measured_on: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict:
        """The facts in plain JSON types, without the maps."""
        facts = {name: value for name, value in vars(self).items() if name not in ("heatmap", "patches")}
        return {**facts, "point": list(self.point), "box": list(self.box), "hit_rate": dict(self.hit_rate)}

    def said(self) -> str:
        """The measured hit rate in one sentence."""
        if self.hit_rate.get("value") is None:
            return "How often such a maximum lies in a lesion was not measured."
        return (
            f"In pictures that have a lesion the maximum lay in it at a rate of {figure_text(self.hit_rate)} "
            f"({self.hit_rate['n']} {self.measured_on} pictures of {self.hit_rate['groups']} groups)."
        )


def peak(heatmap: np.ndarray) -> tuple[tuple[float, float], Box]:
    """The maximum of a map `[H, W]` as a point (x, y), and the box round its region; fractions of width and height.

    Of several equal maxima the point is the middle one in reading order.
    """
    height, width = heatmap.shape
    places = np.argwhere(heatmap == heatmap.max())
    row, column = (int(place) for place in places[len(places) // 2])
    parts = label(heatmap >= PART * heatmap[row, column])[0]
    rows, columns = find_objects(parts)[parts[row, column] - 1]
    point = (column + 0.5) / width, (row + 0.5) / height
    return point, (columns.start / width, rows.start / height, columns.stop / width, rows.stop / height)
