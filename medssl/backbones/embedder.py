"""How images become embeddings: a backbone, how pixels are prepared for it, and how its tokens are pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from medssl.backbones.backbone import Backbone
from medssl.backbones.embeddings import embed, embedding_vectors, fingerprint
from medssl.backbones.encoding import Encoding
from medssl.backbones.frames import Frames
from medssl.backbones.patch_tokens import Layer, patch_tokens
from medssl.errors import BackboneError
from medssl.images.preprocess import Preprocess


@dataclass(frozen=True)
class Embedder:
    """A backbone with the preprocessing and the pooling that make an embedding of an image.

    Raises BackboneError for a pooling that the backbone does not have, and for an input size that is no multiple of
    its patch.
    """

    backbone: Backbone
    preprocess: Preprocess
    pooling: str

    def __post_init__(self) -> None:
        self.backbone.embedding_dim(self.pooling)
        height, width = self.preprocess.size
        stride = self.backbone.stride
        if stride and (height % stride or width % stride):
            near = [max(stride, round(side / stride) * stride) for side in (height, width)]
            raise BackboneError(
                f"An input of {height}x{width} pixels does not fit the patches of {self.backbone.id!r}, which are "
                f"{stride} pixels wide. Allowed: multiples of {stride}, such as {near[0]}x{near[1]}."
            )

    @classmethod
    def of(cls, backbone: Backbone, preprocess: Preprocess | None = None, pooling: str | None = None) -> Embedder:
        """An embedder with the backbone's own preprocessing and pooling where none is given."""
        return cls(backbone, preprocess or backbone.preprocess, pooling or backbone.default_pooling)

    @property
    def dimension(self) -> int:
        """How many numbers an embedding has."""
        return self.backbone.embedding_dim(self.pooling)

    def describe(self) -> dict:
        """What decides an embedding, in plain JSON types."""
        return {**self.backbone.describe(), "pooling": self.pooling, "preprocess": self.preprocess.to_dict()}

    def fingerprint(self, dataset: Dataset) -> str:
        """A hash of the data set's files and of what decides their embeddings: equal exactly when the result is."""
        return fingerprint(dataset, self.backbone, self.preprocess, self.pooling)

    def embed(
        self,
        dataset: Dataset,
        cache_dir: str | Path | None = None,
        progress: bool = True,
        frames: Frames | None = None,
    ) -> Dataset:
        """The data set with a column `embedding`, cached and resumable; see `embeddings.embed`. Raises ImageError."""
        return embed(dataset, self.backbone, self.preprocess, self.pooling, cache_dir, progress, frames)

    def vectors(
        self,
        dataset: Dataset,
        cache_dir: str | Path | None = None,
        progress: bool = True,
        frames: Frames | None = None,
    ) -> np.ndarray:
        """Embeddings `[N, D]` float32, cached and resumable; see `embeddings.embedding_vectors`. Raises ImageError."""
        return embedding_vectors(dataset, self.backbone, self.preprocess, self.pooling, cache_dir, progress, frames)

    def embed_pixels(self, pixels: torch.Tensor) -> np.ndarray:
        """Embeddings `[B, D]` float32 of normalised pixels `[B, 3, h, w]`, computed in low precision."""
        return self.backbone.embed(pixels, self.pooling)

    def embed_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Embeddings `[B, D]` float32 of RGB images, computed in low precision."""
        return self.embed_pixels(self.backbone.pixels(images, self.preprocess))

    def encode(self, images: Sequence[Image.Image], maps: bool = True) -> Encoding:
        """RGB images encoded in one float32 forward; with `maps`, the feature maps that ViT-CX needs."""
        return self.backbone.encode(images, self.preprocess, maps=maps)

    def patch_tokens(
        self,
        dataset: Dataset,
        layers: Sequence[Layer] = (None,),
        cache_dir: str | Path | None = None,
        progress: bool = True,
        frames: Frames | None = None,
    ) -> dict[Layer, np.ndarray]:
        """Each layer's patch tokens, memory-mapped float16 `[N, P, D]`; see `patch_tokens.patch_tokens`.

        Raises DataError, ImageError, BackboneError.
        """
        return patch_tokens(dataset, self.backbone, self.preprocess, layers, cache_dir, progress, frames)
