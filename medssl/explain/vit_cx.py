"""ViT-CX: which regions cause a class probability (Xie et al., IJCAI 2023, arXiv 2211.03064)."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering

from medssl.backbones import Backbone
from medssl.explain.explainer import Explainer, Saliency, View
from medssl.heads import ClassificationHead

DISTANCE_THRESHOLD = 0.1  # "we set the distance threshold to 0.1", section 4.2 of the paper's code and settings
NOISE_STD = 0.1  # of the Gaussian noise put where a mask removes the image, in normalised pixel units
CHANNELS_AT_ONCE = 128
# A heatmap counts as evidence when its masks move the probability by at least one percentage point.
EVIDENCE_SPREAD = 0.01


def interpolation_matrix(size: int, cells: int) -> torch.Tensor:
    """The bilinear upsampling of `cells` values to `size` pixels as a matrix `[size, cells]`, float64."""
    eye = torch.eye(cells, dtype=torch.float64)[None]
    return torch.nn.functional.interpolate(eye, size=size, mode="linear", align_corners=False)[0].T.contiguous()


def cluster_masks(maps: torch.Tensor, size: tuple[int, int], distance_threshold: float) -> torch.Tensor:
    """Feature maps `[C, h, w]` to causal masks `[N, H, W]` in 0..1, N <= C.

    Each channel, upsampled and min-max scaled, is a mask; masks whose cosine distances all lie under the threshold
    (complete linkage) are summed and scaled again. Channels without any contrast carry no mask: N is 0 when none has.
    The cosines come from the Gram matrix of the upsampling, so pixel-size channels never exist all at once.
    """
    maps = maps.double().cpu()
    rows, columns = (interpolation_matrix(pixels, cells) for pixels, cells in zip(size, maps.shape[1:], strict=True))
    lows, highs = [], []
    for chunk in maps.split(CHANNELS_AT_ONCE):
        pixels = (rows @ chunk @ columns.T).flatten(1)
        lows.append(pixels.amin(dim=1))
        highs.append(pixels.amax(dim=1))
    low, span = torch.cat(lows), torch.cat(highs) - torch.cat(lows)
    keep = span > 1e-9 * maps.abs().amax().clamp(min=1e-12)
    maps, low, span = maps[keep], low[keep], span[keep]
    if len(maps) == 0:
        return torch.zeros(0, *size)
    labels = np.zeros(len(maps), dtype=int)
    if len(maps) > 1:
        weighted = (rows.T @ rows) @ maps @ (columns.T @ columns)
        products = weighted.flatten(1) @ maps.flatten(1).T
        sums = torch.einsum("h,chw,w->c", rows.sum(0), maps, columns.sum(0))
        products -= low[:, None] * sums + sums[:, None] * low
        products += size[0] * size[1] * low[:, None] * low
        products /= span[:, None] * span
        norms = products.diagonal().clamp(min=1e-30).sqrt()
        distances = (1 - products / (norms[:, None] * norms)).clamp(min=0)
        distances = ((distances + distances.T) / 2).fill_diagonal_(0)
        clustering = AgglomerativeClustering(
            n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=distance_threshold
        )
        labels = clustering.fit(distances.numpy()).labels_
    members = torch.nn.functional.one_hot(torch.from_numpy(labels).long()).double()
    summed = torch.einsum("cn,chw->nhw", members / span[:, None], maps)
    masks = rows @ summed @ columns.T
    low, high = masks.amin(dim=(1, 2), keepdim=True), masks.amax(dim=(1, 2), keepdim=True)
    masks = ((masks - low) / (high - low).clamp(min=1e-12)).float()
    return masks[(high - low).flatten() > 1e-9]


class ViTCX(Explainer):
    """The explainer: `ViTCX(backbone, head).explain(image)`.

    Cost: 1 forward for the feature maps and 2N for N masks (10 to 60 in practice); memory for one batch of forwards.
    Raises BundleError when head and backbone do not belong together.
    """

    method = "vit_cx"
    title = "ViT-CX"
    paper = "Xie et al., IJCAI 2023, arXiv 2211.03064"

    def __init__(
        self, backbone: Backbone, head: ClassificationHead, distance_threshold: float = DISTANCE_THRESHOLD
    ) -> None:
        super().__init__(backbone, head)
        self.distance_threshold = distance_threshold

    def saliency(self, view: View) -> Saliency:
        """Each pixel: the mean score of the masks weighted by how much they show of it (their equation of coverage)."""
        size = view.pixels.shape[-2:]
        masks = cluster_masks(view.encoding.maps[0].permute(2, 0, 1), tuple(size), self.distance_threshold)
        if not len(masks):
            return Saliency(np.zeros(size, np.float32), 0, 0, False)
        scores = self.causal_scores(view, masks)
        weighted = torch.einsum("n,nhw->hw", scores, masks)
        values = (weighted / masks.sum(dim=0).clamp(min=1e-8) / len(masks)).numpy()
        evidence = len(masks) > 1 and float(scores.max() - scores.min()) >= EVIDENCE_SPREAD
        return Saliency(values, len(masks), 2 * len(masks), evidence)

    def causal_scores(self, view: View, masks: torch.Tensor) -> torch.Tensor:
        """The causal impact `[N]` of masks `[N, h, w]` on the score: p(x*m + n*(1-m)) - p(x + n*(1-m)) + p(x)."""
        pixels, generator = view.pixels, torch.Generator().manual_seed(view.seed)
        batch = max(1, self.backbone.batch_size(self.head.preprocess) // 2)
        scores = []
        for start in range(0, len(masks), batch):
            mask = masks[start : start + batch, None]
            # Drawn mask by mask, so that the batch size has no part in the result.
            drawn = torch.stack([torch.randn(pixels.shape[1:], generator=generator) for _ in mask])
            noise = NOISE_STD * drawn * (1 - mask)
            shown, noisy = self.scores(view.score, torch.cat([pixels * mask + noise, pixels + noise])).chunk(2)
            scores.append(shown - noisy + view.value)
            view.progress(min(1.0, (start + len(mask)) / len(masks)))
        return torch.cat(scores)
