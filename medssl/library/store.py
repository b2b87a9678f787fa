"""A place where the vectors of libraries are kept and searched: what every kind of it can do."""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from medssl.library.vectors import CaseVectors, Exclusion

# Up to here every case is compared (a scan of 20,000 x 384 takes about 20 ms, building their graph half a minute);
# above, HNSW proposes candidates.
EXACT_UP_TO = 20_000


class Hit(NamedTuple):
    """One case that was found: its row and its cosine."""

    id: int
    score: float


class Store(ABC):
    """A place shared by all libraries of this process there; each has a collection of its own in it."""

    in_memory = False

    def __init__(self, location: str) -> None:
        self.location = location
        self.lock = threading.RLock()
        self.libraries: weakref.WeakSet = weakref.WeakSet()

    @abstractmethod
    def collection_for(self, name: str, cases: CaseVectors) -> str:
        """The name of a complete collection of these cases; built only where there is none. Raises LibraryError."""

    @abstractmethod
    def query(self, collection: str, vector: np.ndarray, limit: int, exclusion: Exclusion) -> list[Hit]:
        """The `limit` nearest to a unit vector `[D]` that are not excluded, best first. Raises LibraryError."""

    @abstractmethod
    def drop(self, collection: str) -> None:
        """Let go of a collection whose library is closed."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything that is open."""
