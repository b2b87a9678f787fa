"""The control: a smooth random map that has never seen the image, to measure the others against."""

from __future__ import annotations

from medssl.explain.explainer import Explainer, Saliency, View
from medssl.explain.faithfulness import random_heatmap


class RandomMap(Explainer):
    """No paper: a map from the seed alone, which no explainer should fail to beat. Cost: nothing."""

    method = "random"
    title = "Random map (control)"
    paper = ""
    caution = "It has never seen the image: a control to hold the others against."
    explains_cases = False

    def saliency(self, view: View) -> Saliency:
        """Seeded smooth noise; `evidence` is True so that it is drawn and measured like any other map."""
        values = random_heatmap(*view.pixels.shape[-2:], view.seed)
        view.progress(1.0)
        return Saliency(values, 0, 0, True)
