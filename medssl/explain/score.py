"""What a heatmap explains: one number of an encoding, a class probability, a margin or the likeness to a case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from medssl.backbones.backbone import Encoding
from medssl.errors import BundleError
from medssl.heads.head import Head
from medssl.library.library import Case


@dataclass(frozen=True)
class Score:
    """A named number of each image of an encoding: `values(encoding) -> [B]` float32, differentiable.

    `kind` is "class", "margin" or "case"; `name` the label or the case's id.
    """

    name: str
    kind: str
    values: Callable[[Encoding], torch.Tensor]


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


def as_score(head: Head, target: str | int | Case | Score | None, probabilities: torch.Tensor) -> Score:
    """The score meant: a Score as it is, a Case's likeness, else a class's probability (see `class_index`)."""
    if isinstance(target, Score):
        return target
    if not isinstance(target, Case):
        return class_score(head, class_index(head, target, probabilities))
    if target.embedding is None:
        raise BundleError(f"Case {target.id!r} carries no embedding to compare with. Take it from a library's search.")
    return case_score(target.id, target.embedding, head.pooling)


def case_score(name: str, embedding: np.ndarray | torch.Tensor, pooling: str) -> Score:
    """The cosine to a case's embedding `[D]`: why is this case similar? (X-MIR: Dong et al., WACV 2022)."""
    reference = torch.as_tensor(embedding).float().flatten()[None]

    def values(encoding: Encoding) -> torch.Tensor:
        return cosine_similarity(encoding.pool(pooling).float().cpu(), reference, dim=-1)

    return Score(name, "case", values)
