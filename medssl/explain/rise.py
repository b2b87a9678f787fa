"""RISE: the mean score of random masks that show a pixel (Petsiuk, Das & Saenko, BMVC 2018)."""

from __future__ import annotations

import math

import torch

from medssl.explain.explainer import EVIDENCE_SPREAD, Explainer, Saliency, View

MASKS = 128  # the paper draws 4000 to 8000; this many keep a page waiting no longer than its other methods
CELLS = 7  # a side
SHOWN = 0.5  # of the cells


def random_mask(size: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """A mask `[h, w]` in 0 to 1: random cells, upsampled bilinearly and cut out at a random shift below one cell."""
    cell = [math.ceil(pixels / CELLS) for pixels in size]
    cells = (torch.rand(1, 1, CELLS, CELLS, generator=generator) < SHOWN).float()
    large = [(CELLS + 1) * pixels for pixels in cell]
    mask = torch.nn.functional.interpolate(cells, size=large, mode="bilinear", align_corners=False)[0, 0]
    top, left = (int(torch.randint(pixels, (), generator=generator)) for pixels in cell)
    return mask[top : top + size[0], left : left + size[1]]


class RISE(Explainer):
    """Petsiuk, Das & Saenko, BMVC 2018, arXiv 1806.07421.

    Divided by how much the masks drawn show of a pixel, where the paper divides by what they show on average: the same
    in the limit, and less noise at few masks. Cost: MASKS forwards, no gradients; memory for one batch of forwards.
    """

    method = "rise"
    title = "RISE"
    paper = "Petsiuk et al., BMVC 2018, arXiv 1806.07421"

    def saliency(self, view: View) -> Saliency:
        """Each pixel: the mean score of the masks, weighted by how much they show of it."""
        size, generator = view.pixels.shape[-2:], torch.Generator().manual_seed(view.seed)
        batch = self.backbone.batch_size(self.head.preprocess)
        total, cover, scores = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64), []
        for start in range(0, MASKS, batch):
            masks = torch.stack([random_mask(size, generator) for _ in range(min(batch, MASKS - start))])
            scores.append(self.scores(view.score, view.pixels * masks[:, None]))
            total += torch.einsum("n,nhw->hw", scores[-1].double(), masks.double())
            cover += masks.double().sum(dim=0)
            view.progress((start + len(masks)) / MASKS)
        found = torch.cat(scores)
        values = (total / cover.clamp(min=1e-8)).float().numpy()
        return Saliency(values, MASKS, MASKS, float(found.max() - found.min()) >= EVIDENCE_SPREAD)
