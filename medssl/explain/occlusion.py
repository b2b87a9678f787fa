"""Occlusion: how far the score drops where a grey window slides over the image (Zeiler & Fergus, ECCV 2014)."""

from __future__ import annotations

import numpy as np
import torch

from medssl.explain.explainer import EVIDENCE_SPREAD, Explainer, Saliency, View

WINDOW = 1 / 7  # of the frame's height and width, in whole patches
STRIDE = 1 / 2  # of a window


def starts(cells: int) -> tuple[int, list[int]]:
    """A window's length in cells and where along `cells` it is put; the last one ends with the frame."""
    window = max(1, round(cells * WINDOW))
    found = list(range(0, cells - window + 1, max(1, round(window * STRIDE))))
    return window, sorted({*found, cells - window})


class Occlusion(Explainer):
    """Zeiler & Fergus, ECCV 2014, arXiv 1311.2901.

    Grey is the model's own mean, 0 in normalised pixels. Cost: a forward for each window (169 on a grid of 14 x 14
    patches, 225 on 16 x 16), no gradients; memory for one batch of forwards.
    """

    method = "occlusion"
    title = "Occlusion"
    paper = "Zeiler & Fergus, ECCV 2014, arXiv 1311.2901"

    def saliency(self, view: View) -> Saliency:
        """Each pixel: the mean drop of the score over the windows that cover it."""
        size = view.pixels.shape[-2:]
        unit = self.backbone.stride or 1
        (high, tops), (wide, lefts) = (starts(pixels // unit) for pixels in size)
        windows = [
            (slice(top * unit, (top + high) * unit), slice(left * unit, (left + wide) * unit))
            for top in tops
            for left in lefts
        ]
        batch = self.backbone.batch_size(self.head.preprocess)
        drops = []
        for start in range(0, len(windows), batch):
            part = windows[start : start + batch]
            covered = view.pixels.repeat(len(part), 1, 1, 1)
            for image, (rows, columns) in zip(covered, part, strict=True):
                image[:, rows, columns] = 0
            drops.append(view.value - self.scores(view.score, covered))
            view.progress((start + len(part)) / len(windows))
        found = torch.cat(drops).double().numpy()
        total, cover = np.zeros(tuple(size)), np.zeros(tuple(size))
        for drop, window in zip(found, windows, strict=True):
            total[window] += drop
            cover[window] += 1
        values = (total / cover).astype(np.float32)
        evidence = float(found.max() - found.min()) >= EVIDENCE_SPREAD
        return Saliency(values, len(windows), len(windows), evidence)
