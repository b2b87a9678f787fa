"""What an audit finds: one kind of trouble, how bad it is, how often, and the pairs of images that show it."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field

MAX_EXAMPLES = 10
# metrics.json holds them, and a data set of copies would have one for each image.
MAX_PAIRS = 50
ERROR, WARNING, INFO = "error", "warning", "info"
# Fields of metrics.json that name files.
FILE_NAMES = ("examples", "undecodable", "pairs", "unreadable")
ORDER = {ERROR: 0, WARNING: 1, INFO: 2}
PIXELS, THUMBNAILS, EMBEDDINGS = "equal pixels", "correlation of thumbnails", "cosine of embeddings"


@dataclass(frozen=True)
class Pair:
    """Two images of a data set that do not belong where they are.

    `rows` are their two places in the audited data set, `files` their two names, `similarity` is at most 1 and
    `measure` says of what. `turn` is what makes the second the first, as "mirrored left-right"; "" for nothing.
    """

    rows: list[int]
    files: list[str]
    similarity: float
    measure: str
    turn: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing the audit found: `count` says how often, `examples` (at most ten) where.

    `pairs` are the most similar (at most fifty) of the pairs that it counts, most similar first.
    """

    kind: str
    severity: str
    count: int
    message: str
    examples: list[str] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)

    @classmethod
    def from_dict(cls, found: dict) -> Finding:
        """A finding back from its plain JSON form."""
        return cls(**{**found, "pairs": [Pair(**pair) for pair in found.get("pairs", [])]})


def number(items: Sized, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def finding(kind: str, severity: str, examples: Sequence[str], message: str, pairs: Sequence[Pair] = ()) -> Finding:
    """A finding that keeps its first examples and its most similar pairs."""
    worst = sorted(pairs, key=lambda pair: -pair.similarity)[:MAX_PAIRS]
    return Finding(kind, severity, len(examples), message, list(examples[:MAX_EXAMPLES]), worst)


def without_file_names(value: object) -> object:
    """Plain JSON of metrics without the names of somebody's files, which the findings' examples and pairs hold."""
    if isinstance(value, dict):
        return {key: [] if key in FILE_NAMES else without_file_names(item) for key, item in value.items()}
    return [without_file_names(item) for item in value] if isinstance(value, list) else value
