"""Does a heatmap point at what decides the class? The pointing game, against a ground-truth mask."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from medssl.errors import DataError

RANDOM_CELLS = 16


def pointing_hit(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """1 where the heatmap's maximum `[H, W]` lies inside the bool mask `[H, W]`, else 0 (Zhang et al. 2018).

    Where several pixels share the maximum it is their share inside, so that a flat map scores as chance. Higher is
    better. Raises DataError for shapes that differ or an empty mask.
    """
    if heatmap.shape != mask.shape:
        raise DataError(f"The heatmap is {heatmap.shape} and the mask {mask.shape}; both must be [height, width].")
    if not mask.any():
        raise DataError("The mask is empty: there is nothing to point at. Leave this image out.")
    return float(mask[heatmap == heatmap.max()].mean())


def random_heatmap(height: int, width: int, seed: int) -> np.ndarray:
    """The control: smooth noise `[height, width]` in 0 to 1, of about a patch grid's coarseness, without any image."""
    coarse = np.random.default_rng(seed).random((RANDOM_CELLS, RANDOM_CELLS))
    fine = gaussian_filter(zoom(coarse, (height / RANDOM_CELLS, width / RANDOM_CELLS), order=1), 1)
    fine = fine[:height, :width]
    return ((fine - fine.min()) / (fine.max() - fine.min())).astype(np.float32)
