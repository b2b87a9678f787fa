"""What a store holds of the cases: unit vectors and the numbers of their groups, and the name that they go by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medssl.errors import DataError, LibraryError
from medssl.metrics.retrieval import unit

BLOCK = 1 << 16
FINGERPRINT_VERSION = 2


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors `[N,D]` at length one, float32. Raises LibraryError naming the first row that has no direction."""
    out = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), BLOCK):  # in blocks: the float64 copy of a million rows takes gigabytes
        block = slice(start, start + BLOCK)
        try:
            out[block] = unit(vectors[block].astype(np.float64))
        except DataError as error:
            of_block = f" (rows counted from {start})" if start else ""
            raise LibraryError(f"The cases cannot be searched: {error}{of_block}") from error
    return out


@dataclass(frozen=True)
class CaseVectors:
    """The embeddings `[N,D]` float32 of the cases as they are, and the number `[N]` of each case's group."""

    embeddings: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, embeddings: np.ndarray, groups: Sequence[str]) -> CaseVectors:
        """With groups numbered in the order in which they come, so that no group's name leaves the data set."""
        numbers: dict[str, int] = {}
        return cls(embeddings, np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64))

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def dimension(self) -> int:
        """D."""
        return self.embeddings.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """A short name for these vectors and groups, in this order."""
        digest = hashlib.sha256(f"{FINGERPRINT_VERSION} {self.embeddings.dtype} {self.embeddings.shape}".encode())
        digest.update(np.ascontiguousarray(self.embeddings).data)
        digest.update(self.groups.data)
        return digest.hexdigest()[:20]

    @cached_property
    def unit(self) -> np.ndarray:
        """The embeddings at length one `[N,D]` float32. Raises LibraryError."""
        return unit_vectors(self.embeddings)


@dataclass(frozen=True)
class Exclusion:
    """The cases that a search leaves out: every row of `rows`; they are those of a group (its number) and of an id."""

    rows: frozenset[int] = frozenset()
    group: int | None = None
    rows_of_id: tuple[int, ...] = ()
