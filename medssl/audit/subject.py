"""What the checks of an audit look at, and what one of them answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset

from medssl.audit.findings import Finding
from medssl.audit.fingerprint import Fingerprint

# What a check needs: columns only, decoded images, or embeddings.
TABLE, IMAGES, VECTORS = "table", "images", "vectors"


@dataclass(frozen=True)
class Subject:
    """A data set under audit. `decoded` are the fingerprints of all rows, or why one cannot be read.

    `files`, `labels`, `splits`, `groups`, `sources` and `fingerprints` are of the readable rows only, whose places in
    the data set are `rows`. Without `decoded` every row counts as readable.
    """

    dataset: Dataset
    decoded: Sequence[Fingerprint | str] | None = None
    seed: int = 0

    @cached_property
    def rows(self) -> list[int]:
        """The places of the readable rows."""
        if self.decoded is None:
            return list(range(len(self.dataset)))
        return [row for row, item in enumerate(self.decoded) if not isinstance(item, str)]

    @cached_property
    def fingerprints(self) -> list[Fingerprint]:
        """The fingerprints of the readable rows."""
        return [item for item in self.decoded or () if not isinstance(item, str)]

    def column(self, name: str) -> np.ndarray:
        """A column of the readable rows."""
        return np.array(self.dataset[name][:])[self.rows]

    @cached_property
    def files(self) -> list[str]:
        """The names of the readable files."""
        return [str(name) for name in self.column("file_name")]

    @cached_property
    def labels(self) -> np.ndarray:
        """The label numbers `[N]`."""
        return self.column("label")

    @cached_property
    def splits(self) -> np.ndarray:
        """The splits `[N]`, "" where none is given."""
        return self.column("split")

    @cached_property
    def groups(self) -> np.ndarray:
        """The groups `[N]`."""
        return self.column("group_id")

    @cached_property
    def sources(self) -> np.ndarray:
        """The sources `[N]`."""
        return self.column("source")

    @property
    def label_names(self) -> list[str]:
        """The classes, in order."""
        return self.dataset.features["label"].names


@dataclass(frozen=True)
class Outcome:
    """What a check answers: findings, and values for the fields of an Audit that it fills."""

    findings: list[Finding] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One question to a data set: its name, what it needs, and how it is answered. Raises DataError."""

    name: str
    needs: str
    run: Callable[[Subject], Outcome]
