"""ViT-CX: which regions cause a class probability (Xie et al., IJCAI 2023, arXiv 2211.03064)."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from sklearn.cluster import AgglomerativeClustering

from medssl.backbones import Backbone, Encoding
from medssl.errors import BundleError
from medssl.explain.explanation import Explanation, to_unit_range
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


class ViTCX:
    """The explainer: `ViTCX(backbone, head).explain(image)`.

    Cost: 1 forward for the feature maps and 2N for N masks (10 to 60 in practice); memory for one batch of forwards.
    Raises BundleError when head and backbone do not belong together.
    """

    def __init__(
        self, backbone: Backbone, head: ClassificationHead, distance_threshold: float = DISTANCE_THRESHOLD
    ) -> None:
        head.check_backbone(backbone)
        self.backbone, self.head, self.distance_threshold = backbone, head, distance_threshold

    def target_index(self, target: str | int | None, probabilities: torch.Tensor) -> int:
        """The class to explain: a label, an index, or None for the most probable one. Raises BundleError if unknown."""
        labels = self.head.labels
        if target is None:
            return int(probabilities.argmax())
        if isinstance(target, str) and target in labels:
            return labels.index(target)
        if isinstance(target, int) and 0 <= target < len(labels):
            return target
        raise BundleError(f"There is no class {target!r} to explain. Allowed: {', '.join(labels)}.")

    @torch.no_grad()
    def class_probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """Calibrated class probabilities `[B, C]` of normalised pixels `[B, 3, h, w]`."""
        return self.head.probabilities(self.backbone.forward(pixels).pool(self.head.pooling).cpu())

    def explain(
        self,
        image: Image.Image,
        target: str | int | None = None,
        seed: int = 0,
        encoding: Encoding | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Explanation:
        """Explain one class (default: the predicted one) of an RGB image.

        `encoding` may hand in what `backbone.encode([image])` gave, to save that forward. Seeded: two calls give the
        same bits. Raises BundleError for an unknown target.
        """
        started = time.perf_counter()
        passes = 0
        pixels = self.backbone.pixels([image], self.head.preprocess)
        if encoding is None or encoding.maps is None:
            with torch.no_grad():
                encoding = self.backbone.forward(pixels, maps=True)
            passes += 1
        probabilities = self.head.probabilities(encoding.pool(self.head.pooling).cpu())[0]
        index = self.target_index(target, probabilities)
        height, width = pixels.shape[-2:]
        masks = cluster_masks(encoding.maps[0].permute(2, 0, 1), (height, width), self.distance_threshold)
        scores = self.causal_scores(pixels, masks, index, float(probabilities[index]), seed, progress)
        passes += 2 * len(masks)
        saliency = np.zeros((height, width), np.float32)
        if len(masks):
            # Each pixel: the mean score of the masks weighted by how much they show of it (their equation of coverage).
            weighted = torch.einsum("n,nhw->hw", scores, masks)
            saliency = (weighted / masks.sum(dim=0).clamp(min=1e-8) / len(masks)).numpy()
        evidence = len(masks) > 1 and float(scores.max() - scores.min()) >= EVIDENCE_SPREAD
        mapped = self.head.preprocess.to_image_frame(saliency, *image.size)
        heatmap = to_unit_range(mapped) if evidence else np.zeros(mapped.shape, np.float32)
        return Explanation(
            heatmap=heatmap,
            saliency=saliency,
            target=self.head.labels[index],
            probability=float(probabilities[index]),
            masks=len(masks),
            forward_passes=passes,
            seconds=time.perf_counter() - started,
            seed=seed,
            evidence=evidence and bool(heatmap.any()),
        )

    def causal_scores(
        self,
        pixels: torch.Tensor,
        masks: torch.Tensor,
        index: int,
        probability: float,
        seed: int,
        progress: Callable[[float], None] | None = None,
    ) -> torch.Tensor:
        """The causal impact `[N]` of masks `[N, h, w]` on class `index`: p(x*m + n*(1-m)) - p(x + n*(1-m)) + p(x)."""
        generator = torch.Generator().manual_seed(seed)
        batch = max(1, self.backbone.batch_size(self.head.preprocess) // 2)
        scores = []
        for start in range(0, len(masks), batch):
            mask = masks[start : start + batch, None]
            # Drawn mask by mask, so that the batch size has no part in the result.
            drawn = torch.stack([torch.randn(pixels.shape[1:], generator=generator) for _ in mask])
            noise = NOISE_STD * drawn * (1 - mask)
            found = self.class_probabilities(torch.cat([pixels * mask + noise, pixels + noise]))[:, index]
            shown, noisy = found.chunk(2)
            scores.append(shown - noisy + probability)
            if progress is not None:
                progress(min(1.0, (start + len(mask)) / len(masks)))
        return torch.cat(scores) if scores else torch.zeros(0)
