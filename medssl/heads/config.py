"""What a head's config.json holds, as one value: labels, what the head reads, thresholds, what it was fitted on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

import numpy as np

from medssl.backbones.backbone import Backbone
from medssl.backbones.checkpoint import first_line
from medssl.backbones.reading import PLAIN, Reading
from medssl.errors import BackboneError, BundleError
from medssl.heads.prediction_sets import BANDS, AdaptiveSets, threshold_members
from medssl.heads.stored import SHAPE
from medssl.images.preprocess import Preprocess
from medssl.shapes import check_shape

SCHEMA_VERSION = 2  # 1 knew one threshold for all prediction sets; a reader of 1 would make wrong ones of 2
READABLE = (1, 2)
LINEAR = "linear"  # the kind of a head whose config names none
# How configs written by earlier versions call a threshold.
RENAMED = {"familiarity_neighbours": "familiarity_neighbors"}
ConfigT = TypeVar("ConfigT", bound="HeadConfig")


def check_schema(version: object) -> None:
    """Raises BundleError unless a head with this schema_version can be read."""
    if isinstance(version, bool) or version not in READABLE:
        raise BundleError(
            f"This head has schema_version {version!r}; this medssl reads {' and '.join(map(str, READABLE))}. "
            "Update medssl, or fit the head again."
        )


@dataclass(frozen=True)
class Thresholds:
    """What decides the prediction set and the familiarity of an image.

    The prediction set aims at holding the true class of `conformal_level` of images: by `adaptive`, or for a head of
    schema 1 every class from the probability `conformal_probability` on. An image is familiar where its mean cosine to
    its `familiarity_neighbors` nearest training cases is at least `familiarity`. None means that it was never
    calibrated: then no image is called familiar or unfamiliar, and every class is in the prediction set.
    """

    conformal_level: float = 0.9
    conformal_probability: float | None = None
    adaptive: AdaptiveSets | None = None
    familiarity: float | None = None
    familiarity_neighbors: int = 5

    def familiar(self, familiarity: float) -> bool | None:
        """Whether an image of this familiarity is familiar; None where no threshold is known."""
        return None if self.familiarity is None else bool(familiarity >= self.familiarity)

    def members(self, probabilities: np.ndarray) -> np.ndarray:
        """Bool `[N, C]`: the prediction sets of calibrated probabilities `[N, C]`."""
        if self.adaptive is not None:
            return self.adaptive.members(probabilities)
        if self.conformal_probability is not None:
            return threshold_members(probabilities, self.conformal_probability)
        return np.ones(probabilities.shape, bool)

    def promise(self) -> list[str]:
        """How the prediction sets were calibrated and what they can promise, in plain sentences for card and page."""
        level = f"{self.conformal_level:.0%}"
        if self.adaptive is None and self.conformal_probability is None:
            return ["The prediction sets were not calibrated: every class is in them."]
        if self.adaptive is None:
            return [
                f"Calibrated by an earlier version, with one threshold for all images: sets hold the true class in "
                f"{level} of images on average, and in fewer where the model is unsure. Build the bundle again."
            ]
        bands, fewest = len(self.adaptive.groups), min(self.adaptive.groups)
        where = f"within each of {bands} bands of confidence" if bands > 1 else "over all images together"
        sentences = [
            f"Calibrated on validation by group for {level}, {where} ({fewest} groups or more in each), over all "
            "classes together."
        ]
        promised = self.adaptive.promised(self.conformal_level)
        if promised < self.conformal_level:
            sentences.append(f"Validation has too few groups to promise {level}: {promised:.0%} can be promised.")
        elif bands < BANDS:
            sentences.append(
                f"Validation has too few groups to promise {level} for unsure and sure images each by themselves."
            )
        thin = self.adaptive.thin_classes(self.conformal_level)
        if thin:
            counts = ", ".join(f"{label} ({self.adaptive.class_groups[label]})" for label in thin)
            sentences.append(f"Too few validation groups to tell how well a class by itself is covered: {counts}.")
        return sentences

    def summary(self) -> str:
        """The thresholds in one line for the card: names and numbers, unknown ones left out."""
        values = self.to_dict()
        values.pop("adaptive", None)
        parts = [f"{name} {value:.4g}" for name, value in values.items()]
        if self.adaptive is not None:
            parts += self.adaptive.summary()
        return ", ".join(parts)

    def to_dict(self) -> dict:
        """The thresholds in plain JSON types, unknown ones left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Thresholds:
        """The thresholds of a config.json, of this version or an earlier one. Raises BundleError for unknown names."""
        renamed = {RENAMED.get(name, name): value for name, value in values.items()}
        allowed = [item.name for item in fields(cls)]
        unknown = sorted(set(renamed) - set(allowed))
        if unknown:
            raise BundleError(f"A head has no threshold {', '.join(unknown)}. Allowed: {', '.join(allowed)}.")
        if renamed.get("adaptive") is not None:
            renamed["adaptive"] = AdaptiveSets.from_dict(renamed["adaptive"])
        return cls(**renamed)


@dataclass(frozen=True)
class HeadConfig:
    """All settings of a head; see `to_dict` for their form in config.json.

    `backbone` is {"id", "revision", "dimension"}; `embedding_dim` and `pooling` are of the embedding that the library
    searches, `case_space` is the space that it compares them in: together the `reading`. `fitted_on`, `task` and
    `versions` are plain JSON. Raises BundleError for settings that do not fit.
    """

    kind: ClassVar[str] = LINEAR

    labels: list[str]
    embedding_dim: int
    backbone: dict
    pooling: str
    preprocess: Preprocess
    temperature: float = 1.0
    thresholds: Thresholds = Thresholds()
    fitted_on: dict = field(default_factory=dict)
    task: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    case_space: str = PLAIN

    def __post_init__(self) -> None:
        if not is_plain(self.to_dict()):
            raise BundleError("A head's config must be plain JSON (lists, dicts with text keys, numbers, text).")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise BundleError(f"A head needs two or more different labels; given: {self.labels}.")
        if not 0 < self.temperature < math.inf:
            raise BundleError(f"temperature is {self.temperature}; it must be above 0.")
        try:
            _ = self.reading
        except BackboneError as error:
            raise BundleError(f"The head's config does not fit. {error}") from error

    @property
    def reading(self) -> Reading:
        """What an embedding is made of, and the space that cases are compared in."""
        return Reading.parse(self.pooling, self.case_space)

    def to_dict(self) -> dict:
        """The config.json of the head, with its schema_version; a linear head's names no kind."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values |= {"preprocess": self.preprocess.to_dict(), "thresholds": self.thresholds.to_dict()}
        kind = {} if self.kind == LINEAR else {"kind": self.kind}
        return {**values, **kind, "schema_version": SCHEMA_VERSION}

    @classmethod
    def for_backbone(
        cls: type[ConfigT], backbone: Backbone, pooling: str, labels: Sequence[str], settings: Mapping[str, Any]
    ) -> ConfigT:
        """The settings of a head on a backbone; `settings` are any others, as values or in the form of config.json.

        Raises BundleError for one that there is not or that does not fit.
        """
        unknown = sorted(set(settings) - {item.name for item in fields(cls)})
        if unknown:
            raise BundleError(f"A {cls.kind} head has no setting {', '.join(unknown)}.")
        plain = {
            name: value.to_dict() if isinstance(value, (Preprocess, Thresholds)) else value
            for name, value in {"preprocess": backbone.preprocess, **settings}.items()
        }
        named = {"labels": list(labels), "embedding_dim": backbone.embedding_dim(pooling), "pooling": pooling}
        return cls.from_dict({"kind": cls.kind, "backbone": backbone.describe(), **named, **plain})

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
        """The settings of a config.json; keys that are no setting (such as where it was published) are left out.

        Raises BundleError for another schema, and when a setting is missing or does not fit.
        """
        check_schema(values.get("schema_version", READABLE[0]))
        kind = values.get("kind", LINEAR)
        if kind != cls.kind:
            raise BundleError(f"The config is of a head of kind {kind!r}; {cls.__name__} is of kind {cls.kind!r}.")
        settings = {item.name: values[item.name] for item in fields(cls) if values.get(item.name) is not None}
        needed = [item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING]
        missing = [name for name in needed if name not in settings]
        if missing:
            raise BundleError(f"The head's config lacks {', '.join(missing)}. Fit the head again.")
        if not is_plain(settings):
            raise BundleError("A head's config must be plain JSON (lists, dicts with text keys, numbers, text).")
        check_shape(SHAPE, settings, "The head's config", BundleError)
        try:
            settings["preprocess"] = Preprocess.from_dict(settings["preprocess"])
        except (TypeError, ValueError) as error:
            raise BundleError(f"The head's preprocess settings do not fit: {first_line(error)}") from error
        try:
            settings["thresholds"] = Thresholds.from_dict(settings.get("thresholds", {}))
            return cls(**settings)
        except (TypeError, AttributeError) as error:
            raise BundleError(f"The head's config does not fit: {first_line(error)}") from error


def is_plain(value: object) -> bool:
    """Whether a value is the same after it was written as JSON and read again."""
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False
