"""The arrays of one split, which travel together: embeddings, labels and groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medssl.errors import DataError


@dataclass(frozen=True)
class Labelled:
    """Images as a head sees them: `embeddings [N, D]` float32, `labels [N]` int, `groups [N]` text.

    Raises DataError where the three are not of one length.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    def __post_init__(self) -> None:
        lengths = [len(self.embeddings), len(self.labels), len(self.groups)]
        if len(set(lengths)) > 1:
            raise DataError(
                f"{lengths[0]} embeddings, {lengths[1]} labels and {lengths[2]} groups do not belong to the same "
                "images. Give one of each for every image."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, indices: np.ndarray | slice) -> Labelled:
        """Some of the images: by row numbers `[M]`, a bool mask `[N]`, or a slice."""
        return Labelled(self.embeddings[indices], self.labels[indices], self.groups[indices])
