"""Why is this case similar? Where the image is like the case, and where the case is like the image."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from medssl.backbones.backbone import Encoding
from medssl.errors import BundleError
from medssl.explain.explainer import Explainer, Progress
from medssl.explain.explanation import Explanation
from medssl.explain.score import case_score
from medssl.library.library import Case

MIRRORED = "this image"


@dataclass(frozen=True)
class Likeness:
    """The cosine of an image and a case, explained from both sides.

    `explanation` is of the image; `mirrored` is of the case's thumbnail, whose own cosine it names (None for a case
    without a picture).
    """

    case: Case
    explanation: Explanation
    mirrored: Explanation | None


def explain_likeness(
    explainer: Explainer,
    image: Image.Image,
    case: Case,
    encoding: Encoding | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Likeness:
    """Explain the cosine between an RGB image and a library's case, on both (X-MIR: Dong et al., WACV 2022).

    `encoding` may hand in what `backbone.encode([image])` gave. `progress(fraction)` may raise to stop. Raises
    BundleError for a case without an embedding, or an explainer that cannot explain a likeness.
    """
    if not explainer.explains_cases:
        raise BundleError(f"{explainer.title} cannot explain a likeness, only a class. Take another explainer.")
    tell = progress or (lambda _fraction: None)
    backbone, head = explainer.backbone, explainer.head
    if encoding is None:
        encoding = backbone.encode([image], head.preprocess)
    half = 1.0 if case.image is None else 0.5
    found = explainer.explain(image, case, seed, encoding, lambda fraction: tell(half * fraction))
    mirrored = None
    if case.image is not None:
        own = encoding.pool(head.pooling)[0].cpu().numpy()
        score = case_score(MIRRORED, own, head.pooling, case.space)
        mirrored = explainer.explain(case.image, score, seed, progress=lambda fraction: tell(half + half * fraction))
    return Likeness(case, found, mirrored)
