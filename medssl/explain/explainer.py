"""What explainers share: one signature, one score to explain, one way from a map to an Explanation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from medssl.backbones.backbone import Backbone, Encoding, blocks
from medssl.explain.explanation import Explanation, to_unit_range
from medssl.explain.score import Score, as_score, reads_only_cls
from medssl.heads.head import Head
from medssl.library.library import Case

Progress = Callable[[float], None]
# A map made by changing the image counts as evidence when the changes move the score by at least one percentage point.
EVIDENCE_SPREAD = 0.01


@dataclass(frozen=True)
class View:
    """One image as an explainer meets it: normalised `pixels [1, 3, h, w]`, their encoding, and the score to explain.

    `value` is the score of the whole image; whoever reports `progress` (0 to 1) lets its exceptions pass: they stop it.
    """

    pixels: torch.Tensor
    encoding: Encoding
    score: Score
    value: float
    seed: int
    progress: Progress


@dataclass(frozen=True)
class Saliency:
    """A map `values [h, w]` float32 in the model's frame, any scale, higher is more important, and what it cost.

    `evidence` is False where nothing the explainer did moved the score; `settings` are those that made the map.
    """

    values: np.ndarray
    masks: int
    forward_passes: int
    evidence: bool
    settings: dict[str, object] = field(default_factory=dict)


class Explainer:
    """One way to a heatmap: `explain(image)`. A subclass gives `method`, `title`, `paper` and `saliency(view)`.

    `caution` is a sentence to show with the map of a method that does not look at the class; `explains_cases` whether
    it can explain the likeness to a case. Raises BundleError when head and backbone do not belong together.
    """

    method = ""
    title = ""
    paper = ""
    caution = ""
    explains_cases = True

    def __init__(self, backbone: Backbone, head: Head) -> None:
        head.check_backbone(backbone)
        self.backbone, self.head = head.reader(backbone), head

    def saliency(self, view: View, **options: Any) -> Saliency:  # noqa: ANN401
        """The map of one image; forwards and backwards that it took beyond the encoding it was handed are counted."""
        raise NotImplementedError

    @torch.no_grad()
    def scores(
        self, score: Score, pixels: torch.Tensor, batch_size: int | None = None, low_precision: bool = True
    ) -> torch.Tensor:
        """The score `[B]` of normalised pixels `[B, 3, h, w]`, batch by batch, in low precision or float32."""
        batch = batch_size or self.backbone.batch_size(self.head.preprocess)
        backbone = self.backbone.scoring
        return torch.cat(
            [
                score.values(backbone.forward(part, low_precision=low_precision, cls_only=score.cls_only)).cpu()
                for part in pixels.split(batch)
            ]
        )

    def explain(
        self,
        image: Image.Image,
        target: str | int | Case | Score | None = None,
        seed: int = 0,
        encoding: Encoding | None = None,
        progress: Progress | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Explanation:
        """Explain a class (default: the predicted one), the likeness to a case, or any other Score, of an RGB image.

        `encoding` may hand in what `backbone.encode([image])` gave, to save that forward. Seeded: two calls give the
        same bits. `progress(fraction)` may raise to stop. `options` are those of the explainer's `saliency`. Raises
        BundleError for an unknown class.
        """
        started = time.perf_counter()
        pixels = self.backbone.pixels([image], self.head.preprocess)
        passes = 0
        if encoding is None or encoding.maps is None:
            with torch.no_grad():
                encoding = self.backbone.forward(pixels, maps=True)
            passes = 1
        score = as_score(self.head, target, self.head.classify(encoding)[0])
        if self.backbone.has_cls and not self.caution:  # a map that does not look at the class asks for no more scores
            score = replace(score, cls_only=reads_only_cls(score, encoding, len(blocks(self.backbone.model))))
        value = float(score.values(encoding)[0])
        view = View(pixels, encoding, score, value, seed, progress or (lambda _fraction: None))
        found = self.saliency(view, **options)
        mapped = self.head.preprocess.to_image_frame(found.values, *image.size)
        heatmap = to_unit_range(mapped) if found.evidence else np.zeros(mapped.shape, np.float32)
        return Explanation(
            method=self.method,
            heatmap=heatmap,
            saliency=found.values,
            target=score.name,
            probability=value,
            masks=found.masks,
            forward_passes=passes + found.forward_passes,
            seconds=time.perf_counter() - started,
            seed=seed,
            evidence=found.evidence and bool(heatmap.any()),
            settings=found.settings,
        )
