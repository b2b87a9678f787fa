"""The published algorithm of ViT-CX (Xie et al., IJCAI 2023), written down literally and slowly, to compare with."""

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

NOISE_STD = 0.1  # section 4.2 of the paper


def plain_masks(maps, size, threshold):
    """The paper's masks, one obvious step after the other, all at pixel size."""
    upsampled = torch.nn.functional.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
    masks = [(m - m.min()) / (m.max() - m.min()) for m in upsampled if m.max() > m.min()]
    distances = np.zeros((len(masks), len(masks)))
    for i, a in enumerate(masks):
        for j, b in enumerate(masks):
            distances[i, j] = 0 if i == j else 1 - float((a * b).sum() / a.norm() / b.norm())
    tree = linkage(squareform(np.clip((distances + distances.T) / 2, 0, None), checks=False), "complete")
    # scikit-learn merges strictly below the threshold
    labels = fcluster(tree, np.nextafter(threshold, 0), "distance")
    summed = [torch.stack([masks[i] for i in np.flatnonzero(labels == c)]).sum(0) for c in sorted(set(labels))]
    return torch.stack([(m - m.min()) / (m.max() - m.min()) for m in summed])


def plain_saliency(backbone, head, image, masks, index, seed, noise="full"):
    """The paper's algorithm mask by mask; with noise "first_order" its second term by gradients, pixel by pixel."""
    pixels = backbone.pixels([image], head.preprocess)[0]

    def probability(x):
        return head.probabilities(backbone.forward(x[None]).pool(head.pooling))[0, index]

    def gradient(x):
        x = x.clone().requires_grad_(True)
        probability(x).backward()
        return x.grad

    generator = torch.Generator().manual_seed(seed)
    if noise == "first_order":
        drawn = NOISE_STD * torch.randn(1, *pixels.shape, generator=generator)[0]
        effect = (gradient(pixels + drawn) - gradient(pixels - drawn)) * drawn / 4
    total, cover = torch.zeros(pixels.shape[1:]), torch.zeros(pixels.shape[1:])
    for mask in masks:
        drawn = NOISE_STD * torch.randn(*pixels.shape, generator=generator) * (1 - mask)
        with torch.no_grad():
            score = probability(pixels * mask + drawn)
            if noise == "full":
                score = score - probability(pixels + drawn) + probability(pixels)
            elif noise == "first_order":
                score = score - (effect * (1 - mask) ** 2).sum()
        total += score * mask
        cover += mask
    return (total / cover.clamp(min=1e-8) / len(masks)).numpy()
