"""What config.json of a head may hold, field by field; what the values mean is `HeadConfig`'s business."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import FiniteFloat, TypeAdapter
from typing_extensions import NotRequired, TypedDict

from medssl.backbones.processor import Side

Share = Annotated[FiniteFloat, Ge(0), Le(1)]
Count = Annotated[int, Ge(0)]


class StoredBackbone(TypedDict):
    """The backbone that the head was fitted on."""

    id: str
    revision: str
    dimension: Annotated[int, Ge(1)]


class StoredPreprocess(TypedDict, total=False):
    """Fields of `Preprocess`."""

    size: list[Side]
    fit: str
    mean: list[FiniteFloat]
    std: list[FiniteFloat]
    interpolation: str


class StoredSets(TypedDict):
    """Fields of `AdaptiveSets`."""

    edges: list[Share]
    probabilities: list[FiniteFloat]
    groups: list[Count]
    class_groups: dict[str, Count]
    minimum_mass: NotRequired[Annotated[FiniteFloat, Gt(0), Le(1)]]


class StoredThresholds(TypedDict, total=False):
    """Fields of `Thresholds`, of this version or an earlier one."""

    conformal_level: Annotated[FiniteFloat, Gt(0), Lt(1)]
    conformal_probability: FiniteFloat | None
    adaptive: StoredSets | None
    familiarity: FiniteFloat | None
    familiarity_neighbors: Annotated[int, Ge(1)]
    familiarity_neighbours: Annotated[int, Ge(1)]


class StoredHead(TypedDict, total=False):
    """Fields of `HeadConfig`; the task is checked by `Task.from_dict`, what other kinds of head add by them."""

    labels: list[str]
    embedding_dim: Annotated[int, Ge(1)]
    backbone: StoredBackbone
    pooling: str
    case_space: str
    preprocess: StoredPreprocess
    temperature: FiniteFloat
    thresholds: StoredThresholds
    fitted_on: dict[str, Any]
    task: dict[str, Any]
    versions: dict[str, str]


SHAPE = TypeAdapter(StoredHead)
