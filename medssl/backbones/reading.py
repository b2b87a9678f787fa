"""How an embedding is made of a backbone's tokens: CLS or patch mean, of which blocks, compared in which space."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from medssl.errors import BackboneError

CLS, MEAN = "cls", "mean"
PART = re.compile(f"({CLS}|{MEAN})([1-9][0-9]{{0,2}})?")
POOLINGS = (CLS, MEAN, f"{CLS}+{MEAN}")  # those of the final tokens, which every model with CLS has
FORM = (
    f"{', '.join(POOLINGS)}, or parts joined by '+', each cls or mean with the number of its block where it is not the "
    "final one (cls9+cls10+cls11+cls+mean)"
)
PLAIN, STANDARDIZED, WHITENED = "plain", "standardized", "whitened"
SPACES = (PLAIN, STANDARDIZED, WHITENED)
LAST_BLOCKS = 4


@dataclass(frozen=True)
class Part:
    """One vector `[D]` of an embedding: the CLS token or the mean of the patches after a block (1 is the first).

    A block's tokens pass the model's final layer norm, as in DINOv2's `get_intermediate_layers(norm=True)`. `block`
    None means the final tokens, which have passed it.
    """

    token: str
    block: int | None = None

    def __str__(self) -> str:
        return f"{self.token}{self.block or ''}"


@dataclass(frozen=True)
class Reading:
    """What an embedding is made of, part after part, and the `space` that cases are compared in.

    Its text form, `pooling`, joins the parts: "cls", "mean", "cls+mean", "cls9+cls10+cls11+cls+mean". Only the parts
    decide an embedding; `space` (plain, standardized or whitened) is a linear map of it that is fitted on the training
    cases and used by the search alone. Raises BackboneError for what is no reading.
    """

    parts: tuple[Part, ...]
    space: str = PLAIN

    def __post_init__(self) -> None:
        if not self.parts or len(set(self.parts)) != len(self.parts):
            raise BackboneError(f"The pooling {self.pooling!r} names no part, or one twice. Allowed: {FORM}.")
        if self.space not in SPACES:
            raise BackboneError(f"There is no space {self.space!r} to compare in. Allowed: {', '.join(SPACES)}.")

    @classmethod
    def parse(cls, pooling: str, space: str = PLAIN) -> Reading:
        """The reading of a text form. Raises BackboneError for any other text."""
        found = [PART.fullmatch(part) for part in str(pooling).split("+")]
        if not all(found):
            raise BackboneError(f"Unknown pooling {pooling!r}. Allowed: {FORM}.")
        parts = [Part(match[1], int(match[2]) if match[2] else None) for match in found if match]
        return cls(tuple(parts), space)

    @property
    def pooling(self) -> str:
        """The text form of the parts."""
        return "+".join(map(str, self.parts))

    @property
    def blocks(self) -> tuple[int, ...]:
        """The numbers of the blocks that are read beside the final tokens, rising."""
        return tuple(sorted({part.block for part in self.parts if part.block is not None}))

    def in_space(self, space: str) -> Reading:
        """The same parts, compared in another space."""
        return replace(self, space=space)

    def check(self, has_cls: bool, depth: int | None = None) -> None:
        """Raises BackboneError unless a model with or without CLS, of `depth` blocks to read, has all parts.

        A depth of None is not known and not checked.
        """
        if not has_cls and any(part.token == CLS for part in self.parts):
            raise BackboneError(
                f"Pooling {self.pooling!r} needs a CLS token and this backbone has none. Use pooling 'mean'."
            )
        missing = [block for block in self.blocks if depth is not None and block > depth]
        if missing:
            blocks = f"blocks 1 to {depth}" if depth else "final tokens only, no blocks that can be read"
            raise BackboneError(
                f"Pooling {self.pooling!r} reads block {', '.join(map(str, missing))}; this backbone has {blocks}."
            )

    def columns(self, wider: Reading, width: int) -> np.ndarray:
        """Where this reading's numbers `[D]` stand in an embedding of a wider one; a part has `width` numbers.

        Raises BackboneError where the wider one lacks a part.
        """
        lacking = [str(part) for part in self.parts if part not in wider.parts]
        if lacking:
            raise BackboneError(f"An embedding of {wider.pooling!r} holds no {', '.join(lacking)}. Embed anew.")
        starts = [wider.parts.index(part) * width for part in self.parts]
        return np.concatenate([np.arange(start, start + width) for start in starts])


def union(readings: Iterable[Reading]) -> Reading:
    """One reading with every part of these, so that one forward an image gives them all."""
    return Reading(tuple(dict.fromkeys(part for reading in readings for part in reading.parts)))


def last_blocks(depth: int, mean: bool) -> Reading:
    """DINOv2's linear protocol (Oquab et al. 2023, arXiv 2304.07193, B.3): CLS of the last 4 blocks, each through the
    final norm, and with `mean` the mean of the final patches.
    """
    numbers = range(max(1, depth - LAST_BLOCKS + 1), depth)
    parts = [*(Part(CLS, number) for number in numbers), Part(CLS), *([Part(MEAN)] if mean else [])]
    return Reading(tuple(parts))


def candidate_readings(has_cls: bool, depth: int) -> dict[str, Reading]:
    """The readings that a build tries, by name, the plainest (fewest numbers, then today's default) first.

    A model without CLS has its patch mean only; without blocks that can be read (`depth` 0), its final tokens only.
    """
    if not has_cls:
        return {MEAN: Reading.parse(MEAN)}
    found = {pooling: Reading.parse(pooling) for pooling in POOLINGS}
    if depth > LAST_BLOCKS:
        third = 3 * depth // 4
        found |= {name: Reading.parse(name) for name in (f"{CLS}{depth - 1}", f"{CLS}{third}")}
        found |= {"cls-last4": last_blocks(depth, False), "cls-last4+mean": last_blocks(depth, True)}
        spread = f"{CLS}{third}+{CLS}{depth - 1}+{CLS}+{MEAN}{third}+{MEAN}"
        found["two-depths"] = Reading.parse(spread)
    return dict(sorted(found.items(), key=lambda item: len(item[1].parts)))


def resolve_reading(text: str, has_cls: bool, depth: int) -> Reading:
    """The reading that a name ("cls-last4") or a text form means on such a model. Raises BackboneError."""
    named = candidate_readings(has_cls, depth)
    if text in named:
        return named[text]
    try:
        reading = Reading.parse(text)
    except BackboneError as error:
        raise BackboneError(f"{error} By name on this backbone: {', '.join(named)}.") from error
    reading.check(has_cls, depth)
    return reading
