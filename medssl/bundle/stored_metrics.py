"""What metrics.json of a bundle may hold, so that card, page and API can rely on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import FiniteFloat, TypeAdapter
from typing_extensions import NotRequired, Required, TypedDict

from medssl.errors import BundleError
from medssl.metrics.metric import METRICS as KNOWN_METRICS
from medssl.shapes import check_shape

DEEPEST = 32
Number = FiniteFloat | None


class AnyFigure(TypedDict):
    """A number that was measured, wherever it stands."""

    value: Number
    low: NotRequired[Number]
    high: NotRequired[Number]
    n: NotRequired[int]
    groups: NotRequired[int]


class Figure(AnyFigure):
    """A figure of the tables, with its interval, as `metrics.metric_json` writes it."""

    low: Required[Number]
    high: Required[Number]
    higher_is_better: bool | None


class Ends(TypedDict("Ends", {"from": FiniteFloat, "to": FiniteFloat}, total=False)):
    """From which to which confidence a row is of."""


class CoverageRow(Ends):
    """What `coverage_row` gives; its numbers are None where there were no images, or one group only."""

    name: str
    n: int
    groups: int
    coverage: Number
    low: Number
    high: Number
    group_coverage: Number
    mean_set_size: Number


class ReliabilityBin(Ends):
    """What `reliability_bins` gives."""

    confidence: FiniteFloat
    accuracy: FiniteFloat
    n: int
    low: NotRequired[Number]
    high: NotRequired[Number]


# Every metric that medssl knows is a figure there; those that it does not know are figures too.
Classification = TypedDict(
    "Classification",
    {
        **dict.fromkeys(KNOWN_METRICS, Figure),
        "per_class_recall": dict[str, Figure],
        "coverage": dict[str, list[CoverageRow]],
        "reliability": list[ReliabilityBin],
    },
    total=False,
)


class Unfamiliar(TypedDict):
    """Shares of images flagged as unfamiliar: the own test split's, and other tasks'; {} without a threshold."""

    own: NotRequired[Figure]
    others: NotRequired[dict[str, Figure]]


class FindingShape(TypedDict):
    """A finding of the audit."""

    kind: str
    severity: str
    message: str
    count: NotRequired[int]
    examples: NotRequired[list[str]]


class ShortcutShape(TypedDict):
    """What predicts the label without the disease; earlier versions knew no interval."""

    name: str
    balanced_accuracy: FiniteFloat
    chance: FiniteFloat
    auroc: dict[str, FiniteFloat]
    low: NotRequired[FiniteFloat]
    high: NotRequired[FiniteFloat]


class AuditShape(TypedDict):
    """The audit of the data."""

    images: int
    findings: list[FindingShape]
    shortcuts: NotRequired[list[ShortcutShape]]


class Faithfulness(TypedDict):
    """How the heatmaps were measured; the figures stand beside it."""

    data: str
    split: str
    images: int
    groups: int
    seed: int
    steps: int
    method: str


class MeasuredFigure(AnyFigure):
    """A figure of validation, with its interval and on how much it was measured."""

    low: Required[Number]
    high: Required[Number]
    n: Required[int]
    groups: Required[int]


class HeadChoice(TypedDict):
    """Which kind of head was chosen, and by what; `patch_not_tried` says why there is nothing to compare."""

    asked: str
    chosen: str
    patch_not_tried: NotRequired[str]
    images: NotRequired[int]
    groups: NotRequired[int]
    seed: NotRequired[int]
    linear: NotRequired[AnyFigure]
    patch: NotRequired[AnyFigure]
    patch_minus_linear: NotRequired[AnyFigure]


class CheckedExplainer(TypedDict):
    """How far an explainer's maps are above random ones."""

    less_random: MeasuredFigure


class ExplainerCheck(TypedDict):
    """What validation said of the explainers."""

    explainers: dict[str, CheckedExplainer]


COMPARED = ("images", "groups", "seed", "linear", "patch", "patch_minus_linear")


def check_head_choice(choice: dict[str, Any], file: str) -> None:
    """Raises BundleError where a choice that was made by comparing lacks what it was made by."""
    if choice["asked"] == "auto" and "patch_not_tried" not in choice:
        missing = [name for name in COMPARED if name not in choice]
        if missing:
            raise BundleError(f"head_choice in {file} lacks {', '.join(missing)}. Build or download the bundle again.")


class Metrics(TypedDict, total=False):
    """The sections of metrics.json that are read; others are kept as they are."""

    data: str
    split: str
    images: int
    groups: int
    seed: int
    resamples: int
    classification: Classification
    retrieval: dict[str, Figure]
    unfamiliar: Unfamiliar
    audit: AuditShape
    faithfulness: Faithfulness
    head_choice: HeadChoice
    explainer_check: ExplainerCheck


METRICS = TypeAdapter(Metrics)
FIGURE, ANY_FIGURE = TypeAdapter(Figure), TypeAdapter(AnyFigure)
TABLES = ("classification", "faithfulness")  # sections that hold figures beside other things


def check_metrics(metrics: dict[str, Any], file: str) -> None:
    """Raises BundleError, naming the field, for metrics that cannot be shown; `file` names what holds them."""
    check_shape(METRICS, metrics, file, BundleError)
    check_head_choice(metrics.get("head_choice") or {"asked": ""}, file)
    for name, figure in figures_in(metrics, file):
        check_shape(ANY_FIGURE, figure, f"{name} in {file}", BundleError)
    for section in TABLES:
        for name, value in metrics.get(section, {}).items():
            if isinstance(value, dict) and "value" in value:
                check_shape(FIGURE, value, f"{section}.{name} in {file}", BundleError)


def figures_in(values: dict[str, Any], file: str, depth: int = 1) -> Iterator[tuple[str, dict]]:
    """Every object with a `value`, at whatever depth, by its own name. Raises BundleError beyond DEEPEST levels."""
    if depth > DEEPEST:
        raise BundleError(f"{file} is nested more than {DEEPEST} levels deep. Build or download the bundle again.")
    for name, value in values.items():
        items = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
        for item in items:
            if isinstance(item, dict):
                if "value" in item:
                    yield name, item
                yield from figures_in(item, file, depth + 1)
            elif isinstance(item, list):
                yield from figures_in({name: item}, file, depth + 1)
