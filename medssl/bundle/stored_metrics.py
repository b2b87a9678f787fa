"""What metrics.json of a bundle may hold, so that card, page and API can rely on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, TypeAdapter
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


class TriedReading(TypedDict):
    """What a reading reached on validation, and the paired difference of the best from it."""

    pooling: str
    balanced_accuracy: AnyFigure
    best_minus_this: AnyFigure


class ReadingChoice(TypedDict):
    """Which reading was chosen, and by what."""

    asked: str
    chosen: str
    pooling: str
    images: NotRequired[int]
    groups: NotRequired[int]
    seed: NotRequired[int]
    tried: NotRequired[dict[str, TriedReading]]


class TriedSpace(TypedDict):
    """What a space reached on validation."""

    precision_at_1: AnyFigure
    precision_at_5: AnyFigure
    map_at_10: AnyFigure


class SpaceChoice(TypedDict):
    """Which space cases are compared in, and by what that was chosen."""

    asked: str
    chosen: Literal["plain", "standardized", "whitened"]
    images: NotRequired[int]
    groups: NotRequired[int]
    seed: NotRequired[int]
    tried: NotRequired[dict[str, TriedSpace]]
    chosen_minus_plain: NotRequired[AnyFigure]


class Verdict(TypedDict):
    """Tuned against frozen, as `compare_encoders` writes it; what is not named here is kept as it is."""

    better: bool
    images: int
    groups: int
    seed: int
    tuned: AnyFigure
    frozen: AnyFigure
    tuned_minus_frozen: MeasuredFigure


class FineTuneRecord(TypedDict):
    """Which encoder a bundle is on after tuning, and why."""

    mode: str
    used: Literal["tuned", "frozen"]
    anyway: bool
    verdict: Verdict


class CheckedExplainer(TypedDict):
    """How far an explainer's maps are above random ones."""

    less_random: MeasuredFigure


class GroupFit(TypedDict):
    """What validation said of the ways to make one answer of a group."""

    groups: int
    images: int
    mixed_groups: int
    losses: dict[str, FiniteFloat]
    precision_at_5: dict[str, FiniteFloat]


class GroupSets(TypedDict):
    """The prediction sets of groups, see `AdaptiveSets`."""

    edges: list[FiniteFloat]
    probabilities: list[FiniteFloat]
    groups: list[int]
    class_groups: dict[str, int]
    minimum_mass: FiniteFloat


class GroupRuleShape(TypedDict):
    """How a group's images become one answer, see `GroupRule`."""

    pooling: Literal["logits", "evidence"]
    temperature: Annotated[FiniteFloat, Field(gt=0)]
    similarity: Literal["mean", "best"]
    conformal_level: FiniteFloat
    adaptive: GroupSets
    fitted: GroupFit


class GroupLevel(TypedDict):
    """Figures of groups, each counted once; no classification where no group is of one label."""

    groups: int
    images: int
    mixed_groups: int
    classification: NotRequired[Classification]


class ExplainerCheck(TypedDict):
    """What validation said of the explainers."""

    explainers: dict[str, CheckedExplainer]


class PointFigures(TypedDict):
    """How well a localizer's maps point, on some pictures."""

    name: NotRequired[str]
    hit_rate: MeasuredFigure
    patch_average_precision: MeasuredFigure


class LocalizerRecord(TypedDict):
    """What became of a bundle's localizer; without `held_out` there is none, and `not_fitted` says why."""

    not_fitted: NotRequired[str]
    labels: NotRequired[list[str]]
    pictures: NotRequired[int]
    held_out: NotRequired[PointFigures]
    test: NotRequired[PointFigures]


COMPARED = ("images", "groups", "seed", "linear", "patch", "patch_minus_linear")


def check_head_choice(choice: dict[str, Any], file: str) -> None:
    """Raises BundleError where a choice that was made by comparing lacks what it was made by."""
    if choice["asked"] == "auto" and "patch_not_tried" not in choice:
        missing = [name for name in COMPARED if name not in choice]
        if missing:
            raise BundleError(f"head_choice in {file} lacks {', '.join(missing)}. Build or download the bundle again.")


def check_tried(choice: dict[str, Any], name: str, file: str) -> None:
    """Raises BundleError where a choice that was made by comparing does not say of what, or chose something else."""
    if choice["asked"] != "auto":
        return
    needed = ("images", "groups", "seed", "tried", *(["chosen_minus_plain"] if name == "space_choice" else []))
    missing = [key for key in needed if key not in choice]
    if missing or choice["chosen"] not in choice["tried"]:
        lacks = ", ".join(missing) or f"what it chose, {choice['chosen']!r}"
        raise BundleError(f"{name} in {file} lacks {lacks}. Build or download the bundle again.")


class AdditionShape(TypedDict):
    """Cases that were added after the figures were measured."""

    id: str
    date: str
    data: str
    cases: list[str]


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
    retrieval_plain: dict[str, Figure]
    unfamiliar: Unfamiliar
    audit: AuditShape
    faithfulness: Faithfulness
    reading_choice: ReadingChoice
    head_choice: HeadChoice
    space_choice: SpaceChoice
    finetune: FineTuneRecord
    explainer_check: ExplainerCheck
    additions: list[AdditionShape]
    group_rule: GroupRuleShape
    group_level: GroupLevel
    localizer: LocalizerRecord


METRICS = TypeAdapter(Metrics)
FIGURE, ANY_FIGURE = TypeAdapter(Figure), TypeAdapter(AnyFigure)
TABLES = ("classification", "faithfulness")  # sections that hold figures beside other things


def check_metrics(metrics: dict[str, Any], file: str) -> None:
    """Raises BundleError, naming the field, for metrics that cannot be shown; `file` names what holds them."""
    check_shape(METRICS, metrics, file, BundleError)
    check_head_choice(metrics.get("head_choice") or {"asked": ""}, file)
    for name in ("reading_choice", "space_choice"):
        check_tried(metrics.get(name) or {"asked": ""}, name, file)
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
