"""Does a heatmap depend on what the model learnt? The check by random weights of Adebayo et al. 2018."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.stats import rankdata

from medssl.backbones.backbone import Backbone
from medssl.errors import BackboneError, DataError
from medssl.explain.explainer import Explainer, Progress
from medssl.explain.explanation import Explanation
from medssl.explain.faithfulness import shown_map
from medssl.heads.head import Head

MakeExplainer = Callable[[Backbone, Head], Explainer]


@dataclass(frozen=True)
class Randomization:
    """Spearman correlations `[N, S]` of N images' heatmaps with those of S stages of a randomised model.

    `blocks [S]` is how many of the last blocks are re-initialised in each stage. Nearer to 0 is better, so that of the
    absolute value lower is: a map that stays alike, or inverts, does not come from what the model learnt. Maps are
    compared as they are in the model's frame, also where the randomised model gives no evidence any more; one that
    turns flat counts as 0, an image whose own map is flat or without evidence as NaN.
    """

    blocks: tuple[int, ...]
    correlations: np.ndarray

    @property
    def likeness(self) -> np.ndarray:
        """The absolute correlations `[N, S]`; lower is better."""
        return np.abs(self.correlations)

    def to_dict(self) -> dict:
        """Plain JSON types: the stages, and each one's mean correlation and likeness over images (None if unknown)."""

        def means(values: np.ndarray) -> list[float | None]:
            columns = (column[np.isfinite(column)] for column in values.T)
            return [float(known.mean()) if len(known) else None for known in columns]

        by_stage = {"correlation": means(self.correlations), "likeness": means(self.likeness)}
        return {"blocks": list(self.blocks), "images": len(self.correlations), **by_stage}


def model_blocks(model: torch.nn.Module) -> torch.nn.ModuleList:
    """The transformer blocks, or a convolutional model's stages, first to last. Raises BackboneError without any."""
    config = model.config
    depths = {getattr(config, "num_hidden_layers", None), len(getattr(config, "depths", None) or ())} - {None, 0}
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) in depths:
            return module
    raise BackboneError(f"{type(model).__name__} has no list of blocks that could be randomised one by one.")


@torch.no_grad()
def reinitialize(block: torch.nn.Module, seed: int) -> None:
    """Draw every weight of a block on the CPU anew, in place.

    Layers as torch initialises them; what belongs to no such layer (layer scales, position tables) from a Gaussian with
    the mean and standard deviation it had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in block.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
                continue
            for parameter in module.parameters(recurse=False):
                spread = float(parameter.std(correction=0))
                parameter.copy_(parameter.mean() + spread * torch.randn(parameter.shape))


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The rank correlation of two maps of one shape, ties by their mean rank; NaN if the first is flat, 0 the other."""
    first, second = (rankdata(values).astype(np.float64) for values in (one.ravel(), other.ravel()))
    if first.std() == 0 or second.std() == 0:
        return np.nan if first.std() == 0 else 0.0
    return float(np.corrcoef(first, second)[0, 1])


class CountedExplanations:
    """Heatmaps of images by several explainers, counted so that `progress(fraction)` of all can be told."""

    def __init__(self, images: Sequence[Image.Image], total: int, progress: Progress | None) -> None:
        self.images, self.total, self.progress, self.done = images, max(1, total), progress, 0

    def __call__(self, explainer: Explainer, number: int, target: str | None, seed: int) -> Explanation:
        """The explanation of one image, by its number."""
        explanation = explainer.explain(self.images[number], target=target, seed=seed)
        self.done += 1
        if self.progress is not None:
            self.progress(self.done / self.total)
        return explanation


def model_randomization(
    make: MakeExplainer,
    backbone: Backbone,
    head: Head,
    images: Sequence[Image.Image],
    explanations: Sequence[Explanation] | None = None,
    cascade: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Randomization:
    """Explain RGB images again with the backbone's blocks re-initialised: the last one, then also the one before it,
    down to the first. The head, the embeddings and the final norm stay.

    A correlation nearer to 0 is better; the baseline is stage 0, the untouched copy, which gives 1. `cascade=False`
    takes one stage only: all blocks at once. `make(backbone, head)` is an explainer's class or a function;
    `explanations` may hand in those of the untouched model. The same class and seed are explained in every stage.
    Works on a copy: the backbone given stays as it is. Adebayo et al. 2018, arXiv 1810.03292. Raises DataError where
    explanations do not fit the images, BackboneError for a model without blocks.
    """
    if explanations is not None and len(explanations) != len(images):
        raise DataError(f"{len(explanations)} explanations do not fit {len(images)} images; give one each.")
    model = copy.deepcopy(backbone.model).cpu()
    blocks = model_blocks(model)
    stages = tuple(range(len(blocks) + 1)) if cascade else (len(blocks),)
    explained = CountedExplanations(images, len(images) * (len(stages) + (explanations is None)), progress)
    if explanations is None:
        untouched = make(backbone, head)
        explanations = [explained(untouched, number, None, seed) for number in range(len(images))]
    correlations = np.empty((len(images), len(stages)))
    random = 0
    for column, stage in enumerate(stages):
        for back in range(random, stage):
            reinitialize(blocks[len(blocks) - 1 - back].cpu(), seed + back)
        random = stage
        # A new Backbone each time: whatever the last one derived from its weights is out of date.
        changed = Backbone(model, backbone.id, backbone.revision, backbone.preprocess, backbone.precision)
        explainer = make(changed, head)
        for number, original in enumerate(explanations):
            again = explained(explainer, number, original.target, original.seed)
            correlations[number, column] = spearman(shown_map(original), again.saliency)
    return Randomization(stages, correlations)
