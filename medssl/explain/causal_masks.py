"""The masks of ViT-CX: a backbone's feature maps, upsampled and grouped by likeness (Xie et al. 2023, section 4)."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering

DISTANCE_THRESHOLD = 0.1  # "we set the distance threshold to 0.1", section 4.2 of the paper's code and settings
# The authors' code has no bound. Three encoders make 11 to 58 masks of 240 validation pictures each, so that only odd
# pictures and models meet this one, which keeps a visitor's wait bounded.
MAX_MASKS = 64


def interpolation_matrix(size: int, cells: int) -> torch.Tensor:
    """The bilinear upsampling of `cells` values to `size` pixels as a matrix `[size, cells]`, float64."""
    eye = torch.eye(cells, dtype=torch.float64)[None]
    return torch.nn.functional.interpolate(eye, size=size, mode="linear", align_corners=False)[0].T.contiguous()


def extreme_rows(matrix: torch.Tensor) -> torch.Tensor:
    """The rows of an interpolation matrix `[size, cells]` among which every upsampled map has its extremes.

    Between two cells the upsampled values run along a line, so that only the first and last pixel there can be extreme.
    """
    lower = (matrix > 0).double().argmax(dim=1)
    changes = lower[1:] != lower[:-1]
    first = torch.cat([torch.tensor([True]), changes])
    last = torch.cat([changes, torch.tensor([True])])
    return matrix[first | last]


def causal_masks(
    maps: torch.Tensor,
    size: tuple[int, int],
    distance_threshold: float = DISTANCE_THRESHOLD,
    max_masks: int | None = MAX_MASKS,
) -> torch.Tensor:
    """Feature maps `[C, h, w]` to causal masks `[N, H, W]` in 0..1, N <= C and at most `max_masks`.

    Each channel, upsampled and min-max scaled, is a mask; masks whose cosine distances all lie under the threshold
    (complete linkage) are summed and scaled again. Channels without any contrast carry no mask: N is 0 when none has.
    The cosines come from the Gram matrix of the upsampling and the extremes from a few pixels, so that nothing but the
    N masks is ever of pixel size.
    """
    maps = maps.double().cpu()
    rows, columns = (interpolation_matrix(pixels, cells) for pixels, cells in zip(size, maps.shape[1:], strict=True))
    ends = (extreme_rows(rows) @ maps @ extreme_rows(columns).T).flatten(1)
    low, span = ends.amin(dim=1), ends.amax(dim=1) - ends.amin(dim=1)
    keep = span > 1e-9 * maps.abs().amax().clamp(min=1e-12)
    maps, low, span = maps[keep], low[keep], span[keep]
    if len(maps) == 0:
        return torch.zeros(0, *size)
    weighted = (rows.T @ rows) @ maps @ (columns.T @ columns)
    products = weighted.flatten(1) @ maps.flatten(1).T
    sums = torch.einsum("h,chw,w->c", rows.sum(0), maps, columns.sum(0))
    products -= low[:, None] * sums + sums[:, None] * low
    products += size[0] * size[1] * low[:, None] * low
    products /= span[:, None] * span
    norms = products.diagonal().clamp(min=1e-30).sqrt()
    distances = (1 - products / (norms[:, None] * norms)).clamp(min=0)
    distances = ((distances + distances.T) / 2).fill_diagonal_(0)
    labels = clusters(distances.numpy(), distance_threshold, max_masks)
    members = torch.nn.functional.one_hot(torch.from_numpy(labels).long()).double()
    summed = torch.einsum("cn,chw->nhw", members / span[:, None], maps)
    masks = rows @ summed @ columns.T
    low, high = masks.amin(dim=(1, 2), keepdim=True), masks.amax(dim=(1, 2), keepdim=True)
    masks = ((masks - low) / (high - low).clamp(min=1e-12)).float()
    return masks[(high - low).flatten() > 1e-9]


def clusters(distances: np.ndarray, threshold: float, most: int | None) -> np.ndarray:
    """Complete-linkage cluster numbers `[C]` of distances `[C, C]`: those under the threshold, or `most` of them."""
    if len(distances) < 2:
        return np.zeros(len(distances), dtype=int)
    settings = {"metric": "precomputed", "linkage": "complete"}
    labels = AgglomerativeClustering(n_clusters=None, distance_threshold=threshold, **settings).fit_predict(distances)
    if most is not None and labels.max() >= most:
        labels = AgglomerativeClustering(n_clusters=most, **settings).fit_predict(distances)
    return labels
