"""A heatmap for one class of one image, in that image's own pixel frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

# Colours from no evidence to the strongest: dark blue, teal, yellow, red; readable on grey and on stained images.
COLOR_STOPS = np.array([[20, 20, 90], [0, 130, 160], [250, 220, 60], [200, 20, 20]], np.float32)


@dataclass(frozen=True)
class Explanation:
    """`heatmap [H, W]` float32 in 0..1 in the image's own height and width, and how it came about.

    `method` names the explainer, `target` the class (or case) explained and `probability` its probability (or cosine).
    `saliency [h, w]` is the unnormalised map in the model's frame. `evidence` is False where nothing the explainer did
    moved that number; the heatmap is all zero then. `settings` are those of the explainer, as plain JSON.
    """

    method: str
    heatmap: np.ndarray
    saliency: np.ndarray
    target: str
    probability: float
    masks: int
    forward_passes: int
    seconds: float
    seed: int
    evidence: bool
    settings: dict[str, object] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """The facts in plain JSON types, without the maps."""
        return {name: value for name, value in vars(self).items() if name not in ("heatmap", "saliency")}

    def overlay(self, image: Image.Image, opacity: float = 0.5) -> Image.Image:
        """The heatmap in colour over the RGB image; stronger evidence is more opaque, up to `opacity` (0..1)."""
        return colored(image, self.heatmap, opacity)


def colored(image: Image.Image, heatmap: np.ndarray, opacity: float) -> Image.Image:
    """A map `[H, W]` in 0..1 in colour over the RGB image; higher is more opaque, up to `opacity` (0..1)."""
    position = heatmap * (len(COLOR_STOPS) - 1)
    lower = np.clip(position.astype(int), 0, len(COLOR_STOPS) - 2)
    fraction = (position - lower)[..., None]
    colors = COLOR_STOPS[lower] * (1 - fraction) + COLOR_STOPS[lower + 1] * fraction
    weight = opacity * np.sqrt(heatmap)[..., None]
    blended = np.asarray(image, np.float32) * (1 - weight) + colors * weight
    return Image.fromarray(np.clip(np.round(blended), 0, 255).astype(np.uint8))


def to_unit_range(values: np.ndarray) -> np.ndarray:
    """Values stretched to 0..1; a constant array gives zeros, never NaN."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low) or high - low <= 1e-12:
        return np.zeros_like(values, dtype=np.float32)
    return ((values - low) / (high - low)).astype(np.float32)
