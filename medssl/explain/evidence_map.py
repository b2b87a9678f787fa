"""The evidence map of a head that looks at patches: not an estimate, but the numbers that the head adds up."""

from __future__ import annotations

import numpy as np
import torch

from medssl.backbones.backbone import Backbone
from medssl.errors import BundleError
from medssl.explain.explainer import Explainer, Saliency, View
from medssl.heads.head import Head
from medssl.heads.patch import PatchHead


class EvidenceMap(Explainer):
    """Each patch's evidence for a class: `EvidenceMap(backbone, head).explain(image)`, for a PatchHead only.

    Exact: the mean of the map's top share is the class's log-odds. Costs no forward beyond the encoding. For a margin
    score it is the evidence less that for the strongest rival. Raises BundleError for another head or score, or when
    head and backbone do not belong together.
    """

    method = "evidence_map"
    title = "Evidence map"
    paper = ""
    explains_cases = False

    def __init__(self, backbone: Backbone, head: Head) -> None:
        if not isinstance(head, PatchHead):
            raise BundleError(
                f"An evidence map needs a head that looks at patches; given: a head of kind {head.kind!r}. "
                "Build the bundle with head='patch', or take another explainer."
            )
        super().__init__(backbone, head)

    @torch.no_grad()
    def saliency(self, view: View) -> Saliency:
        """The patch evidence, bilinear from the patch grid to the model's frame."""
        score = view.score
        if score.kind not in ("class", "margin"):
            raise BundleError(f"An evidence map cannot explain a score of kind {score.kind!r}. Allowed: class, margin.")
        index = self.head.labels.index(score.name)
        grid = self.head.evidence_map(view.encoding, index)[0]
        if score.kind == "margin":
            likely = self.head.classify(view.encoding)[0]
            likely[index] = -1
            grid = grid - self.head.evidence_map(view.encoding, int(likely.argmax()))[0]
        size = tuple(view.pixels.shape[-2:])
        values = torch.nn.functional.interpolate(grid[None, None], size=size, mode="bilinear", align_corners=False)
        view.progress(1.0)
        spread = float(grid.max() - grid.min())
        return Saliency(values[0, 0].numpy().astype(np.float32), 0, 0, spread > 0)
