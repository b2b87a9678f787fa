"""Regions of a picture and the cases that have something like it: made in a build when asked for, and searched."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from datasets import Dataset
from PIL import Image

from medssl.backbones.backbone import Backbone, blocks
from medssl.backbones.embedder import Embedder
from medssl.backbones.frames import Frames, SelectedFrames
from medssl.bundle.localize import token_grid
from medssl.errors import BundleError
from medssl.images.preprocess import Preprocess
from medssl.library.library import CaseLibrary
from medssl.library.regions import Box, RegionConfig, RegionIndex, RegionMatch, cases_digest, spread

DEPTH = 9 / 12  # of the blocks: where a patch still says what it is and not only what the picture is
NO_REGIONS = "The bundle {name!r} holds no regions to compare with. Build it with --regions."


class Comparing(Protocol):
    """What a search for regions asks of a bundle."""

    name: str
    regions: RegionIndex | None
    library: CaseLibrary

    def encode_patches(self, picture: Image.Image, preprocess: Preprocess, layer: int | None) -> np.ndarray: ...  # noqa: D102


def region_layer(backbone: Backbone) -> int | None:
    """The block whose patches are compared; None, the final patches, for a backbone without blocks."""
    return max(1, round(DEPTH * len(blocks(backbone.model)))) if backbone.has_cls else None


def build_regions(
    train: Dataset, ids: list[str], frames: Frames, embedder: Embedder, cache_dir: str | Path | None, progress: bool
) -> RegionIndex:
    """The index of the training pictures of a data set, whose cases have these ids, with their frames."""
    layer = region_layer(embedder.backbone)
    tokens = embedder.patch_tokens(train, (layer,), cache_dir, progress, frames)[layer]
    grid = token_grid(embedder.backbone, embedder.preprocess)
    facts = embedder.backbone.describe()
    return RegionIndex.fit(RegionConfig(facts, embedder.preprocess, layer, grid, cases_digest(ids)), tokens)


def train_regions(
    dataset: Dataset, cases: Dataset, frames: Frames, embedder: Embedder, cache: str | Path | None, progress: bool
) -> RegionIndex:
    """The index of the training split of an embedded data set and its cases, row by row the same pictures."""
    rows = np.flatnonzero(np.asarray(dataset["split"][:]) == "train")
    ids = cases.select_columns(["id"]).select(rows)["id"][:]
    return build_regions(dataset.select(rows), ids, SelectedFrames(frames, rows), embedder, cache, progress)


def search_regions(
    bundle: Comparing, picture: Image.Image, box: Box, top_k: int, excluded: frozenset[int]
) -> list[RegionMatch]:
    """The cases with the region most like that of a picture, best first; rows of `excluded` cases are left out.

    Raises BundleError where the bundle holds no regions, LibraryError for a box that cannot be.
    """
    index = bundle.regions
    if index is None:
        raise BundleError(NO_REGIONS.format(name=bundle.name))
    inside = index.inside(box, picture.size)
    patches = bundle.encode_patches(picture, index.config.preprocess, index.config.layer)
    query = index.reduce(patches[inside])
    rows, columns = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    found = []
    for row, score in index.search(spread(query), top_k, excluded):
        case = bundle.library.case_at(row, score)
        size = case.image.size if case.image is not None else index.config.preprocess.size[::-1]
        window = index.match(query, row, (int(rows), int(columns)))
        found.append(RegionMatch(case, index.picture_box(window, size)))
    return found
