"""What is to be said of how a data set was read: it travels with the data set, so that nothing is ignored silently."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset

from medssl.text import printable


def with_notes(dataset: Dataset, notes: Sequence[str]) -> Dataset:
    """The data set with these sentences as its description, which selections and added columns keep."""
    dataset.info.description = "\n".join(map(printable, notes))
    return dataset


def notes_of(dataset: Dataset) -> list[str]:
    """The sentences that `with_notes` put there."""
    return [line for line in (dataset.info.description or "").splitlines() if line]
