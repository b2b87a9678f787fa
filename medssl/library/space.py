"""The space that similar cases are compared in: an embedding as it is, or after one linear map fitted on train."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from medssl.backbones.reading import PLAIN, STANDARDIZED, WHITENED
from medssl.data.labelled import Labelled
from medssl.errors import BundleError

NAMES_IN_WORDS = {
    PLAIN: "the plain embedding",
    STANDARDIZED: "the embedding with every dimension standardized on the training cases",
    WHITENED: "the embedding standardized, then whitened by the shrunk within-class covariance of the training cases",
}
TENSORS = ("matrix", "offset")


@dataclass(frozen=True, eq=False)
class CaseSpace:
    """A linear map of embeddings `[D]`: `(embedding - offset) * matrix [D]`, or `@ matrix [D, D]`; float32.

    A diagonal matrix is that of the standardized space, a full one that of the whitened. Raises BundleError for shapes
    that do not fit, and numbers that are not finite.
    """

    name: str
    matrix: np.ndarray
    offset: np.ndarray

    def __post_init__(self) -> None:
        width = len(self.offset)
        shapes = {STANDARDIZED: (width,), WHITENED: (width, width)}
        if self.name not in shapes:
            raise BundleError(f"There is no map for the space {self.name!r}. Allowed: {', '.join(shapes)}.")
        if self.offset.shape != (width,) or self.matrix.shape != shapes[self.name]:
            raise BundleError(
                f"The map of the {self.name} space is {list(self.matrix.shape)} with the offset "
                f"{list(self.offset.shape)}; needed: {list(shapes[self.name])} and {[width]}. Build the bundle again."
            )
        for values in (self.matrix, self.offset):
            if values.dtype != np.float32 or not np.isfinite(values).all():
                raise BundleError(f"The map of the {self.name} space is no float32, or not finite. Build it again.")

    @property
    def width(self) -> int:
        """How many numbers an embedding has, before and after."""
        return len(self.offset)

    def apply(self, embeddings: ArrayLike) -> np.ndarray:
        """Embeddings `[..., D]` in this space, float64. Raises BundleError for another width."""
        values = np.asarray(embeddings, np.float64)
        if values.shape[-1:] != (self.width,):
            raise BundleError(f"The {self.name} space takes {self.width} numbers; given: {list(values.shape)}.")
        centered = values - self.offset
        return centered * self.matrix if self.matrix.ndim == 1 else centered @ self.matrix.astype(np.float64)

    def to_bytes(self) -> bytes:
        """The map as the bytes of a safetensors file."""
        return save({"matrix": np.ascontiguousarray(self.matrix), "offset": np.ascontiguousarray(self.offset)})

    @classmethod
    def load(cls, path: Path, name: str, width: int) -> CaseSpace:
        """The map of a safetensors file for embeddings of a width. Raises BundleError for any other content."""
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError, TypeError, KeyError) as error:
            raise BundleError(f"{path} holds no map of the cases' space: {error}. Build the bundle again.") from error
        if sorted(tensors) != list(TENSORS) or tensors["offset"].shape != (width,):
            held = {key: list(value.shape) for key, value in tensors.items()}
            raise BundleError(f"{path} holds {held}; a map of {width} numbers is needed: {', '.join(TENSORS)}.")
        return cls(name, tensors["matrix"], tensors["offset"])


def in_space(space: CaseSpace | None, embeddings: np.ndarray) -> np.ndarray:
    """Embeddings `[..., D]` as they are compared: mapped, or as they are where there is no map (the plain space)."""
    return embeddings if space is None else space.apply(embeddings)


def mapped(space: CaseSpace | None, images: Labelled) -> Labelled:
    """Images with their embeddings as they are compared."""
    return Labelled(in_space(space, images.embeddings), images.labels, images.groups)
