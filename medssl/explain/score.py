"""What a heatmap explains: one number of an encoding, a class probability, a margin or the likeness to a case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from medssl.backbones.backbone import Encoding
from medssl.errors import BundleError
from medssl.heads.head import Head
from medssl.library.library import Case
from medssl.library.space import CaseSpace


@dataclass(frozen=True)
class Score:
    """A named number of each image of an encoding: `values(encoding) -> [B]` float32, differentiable.

    `kind` is "class", "margin" or "case"; `name` the label or the case's id. `cls_only` says that it reads nothing of
    the last block but CLS (see `reads_only_cls`), so that a forward need not make the rest.
    """

    name: str
    kind: str
    values: Callable[[Encoding], torch.Tensor]
    cls_only: bool = False


def class_index(head: Head, target: str | int | None, probabilities: torch.Tensor) -> int:
    """The class meant: a label, an index, or None for the most probable of `[C]`. Raises BundleError if unknown."""
    if target is None:
        return int(probabilities.argmax())
    if isinstance(target, str) and target in head.labels:
        return head.labels.index(target)
    if isinstance(target, int) and 0 <= target < len(head.labels):
        return target
    raise BundleError(f"There is no class {target!r} to explain. Allowed: {', '.join(head.labels)}.")


def class_score(head: Head, index: int) -> Score:
    """The calibrated probability of one class."""
    return Score(head.labels[index], "class", lambda encoding: head.classify(encoding)[:, index])


def margin_score(head: Head, index: int) -> Score:
    """The calibrated probability of one class less that of its strongest rival."""

    def values(encoding: Encoding) -> torch.Tensor:
        probabilities = head.classify(encoding)
        others = [other for other in range(len(head.labels)) if other != index]
        return probabilities[:, index] - probabilities[:, others].amax(dim=1)

    return Score(head.labels[index], "margin", values)


def reads_only_cls(score: Score, encoding: Encoding, depth: int) -> bool:
    """Whether a score of an encoding is the same without its final patches and without the last block's tokens.

    Tried, not assumed: they are made NaN, which nothing that reads them survives. `depth` is the last block's number.
    """

    def without(part: object) -> object:
        if isinstance(part, dict):
            return {block: torch.full_like(of, torch.nan) if block == depth else of for block, of in part.items()}
        return torch.full_like(part, torch.nan) if isinstance(part, torch.Tensor) else part

    kept = {field.name: without(getattr(encoding, field.name)) for field in fields(encoding) if field.name != "cls"}
    return torch.equal(score.values(replace(encoding, **kept)), score.values(encoding))


def as_score(head: Head, target: str | int | Case | Score | None, probabilities: torch.Tensor) -> Score:
    """The score meant: a Score as it is, a Case's likeness, else a class's probability (see `class_index`)."""
    if isinstance(target, Score):
        return target
    if not isinstance(target, Case):
        return class_score(head, class_index(head, target, probabilities))
    if target.embedding is None:
        raise BundleError(f"Case {target.id!r} carries no embedding to compare with. Take it from a library's search.")
    return case_score(target.id, target.embedding, head.pooling, target.space)


def case_score(name: str, embedding: np.ndarray | torch.Tensor, pooling: str, space: CaseSpace | None = None) -> Score:
    """The cosine to a case's embedding `[D]`, in the library's space: why is this case similar?

    (X-MIR: Dong et al., WACV 2022.)
    """
    reference = mapped(torch.as_tensor(embedding).float().cpu().flatten()[None], space)

    def values(encoding: Encoding) -> torch.Tensor:
        return cosine_similarity(mapped(encoding.pool(pooling).float().cpu(), space), reference, dim=-1)

    return Score(name, "case", values)


def mapped(embeddings: torch.Tensor, space: CaseSpace | None) -> torch.Tensor:
    """Embeddings `[B, D]` in a library's space, as `CaseSpace.apply`; gradients flow."""
    if space is None:
        return embeddings
    matrix, centered = torch.from_numpy(space.matrix), embeddings - torch.from_numpy(space.offset)
    return centered * matrix if matrix.ndim == 1 else centered @ matrix
