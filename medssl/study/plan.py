"""What a study does, apart from which backbones and data it compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medssl.backbones.backbone import Backbone
from medssl.errors import BackboneError, DataError
from medssl.study.kinds import KINDS
from medssl.study.label_efficiency import DRAWS, SHARES


@dataclass(frozen=True)
class StudyPlan:
    """The settings of a study.

    `against` names the backbones that all others are compared with. `kinds` says how a backbone was trained where its
    source does not tell. `shares` below 1 and `draws` are those of label efficiency. With `parts`, a folder, what was
    measured is kept and found again. `pooling` None is each backbone's own.
    """

    against: Sequence[str] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    pooling: str | None = None
    shares: Sequence[float] = SHARES
    draws: int = DRAWS
    seed: int = 0
    n_bootstrap: int = 1000
    audited: bool = True
    cache_dir: str | Path | None = None
    parts: str | Path | None = None
    progress: bool = True

    def pooling_of(self, backbone: Backbone) -> str:
        """The pooling that a backbone's embeddings are read with."""
        return backbone.resolve_reading(self.pooling).pooling if self.pooling else backbone.default_pooling

    @property
    def seeds(self) -> range:
        """The seed of each draw."""
        return range(self.seed, self.seed + self.draws)

    def check(self, backbones: Mapping[str, object], data: Mapping[str, object]) -> None:
        """Raises DataError or BackboneError where a study of these backbones and data cannot be made."""
        for kind, given in (("backbone", backbones), ("task", data)):
            if not given:
                raise DataError(f"A study needs at least one {kind} and none was given. Name one or more.")
        for what, given in (("reference", self.against), ("kind of", list(self.kinds))):
            unknown = [name for name in given if name not in backbones]
            if unknown:
                raise BackboneError(
                    f"The {what} {', '.join(unknown)} is none of the backbones compared. Allowed: "
                    f"{', '.join(backbones)}."
                )
        wrong = [f"{name}={kind}" for name, kind in self.kinds.items() if kind not in KINDS]
        if wrong:
            raise BackboneError(f"{', '.join(wrong)} is no kind of training. Allowed: {', '.join(KINDS)}.")
        if self.draws < 1:
            raise DataError(f"{self.draws} draws of the training groups cannot be averaged. Allowed: 1 or more.")
