"""Regions of the cases, searchable: reduced patch tokens, compared patch by patch with a region of a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Len
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import PCA
from typing_extensions import TypedDict

from medssl.errors import LibraryError
from medssl.hub.pull import CONFIG_FILE, WEIGHTS_FILE
from medssl.images.preprocess import Preprocess
from medssl.library.library import Case
from medssl.shapes import check_shape, read_json

SCHEMA_VERSION = 1
DIMENSION = 64
FITTED_ON = 50_000  # tokens that the reduction is fitted on, at most
MOST_QUERIES = 64  # patches of a region that are searched with; of more, evenly spread ones
BLOCK = 256  # cases whose tokens are float32 at the same time
Box = tuple[float, float, float, float]


class StoredRegions(TypedDict):
    """What config.json of a region index holds."""

    schema_version: int
    backbone: dict[str, Any]
    preprocess: dict[str, Any]
    layer: Annotated[int, Ge(1)] | None
    grid: Annotated[list[Annotated[int, Ge(1)]], Len(2, 2)]
    cases: str


SHAPE = TypeAdapter(StoredRegions)


@dataclass(frozen=True)
class RegionConfig:
    """What the tokens are of: backbone, input size, block (None: the final tokens), patch `grid`, and which `cases`."""

    backbone: dict
    preprocess: Preprocess
    layer: int | None
    grid: tuple[int, int]
    cases: str

    def to_dict(self) -> dict:
        """The config.json, with its schema_version."""
        return {
            **asdict(self),
            "preprocess": self.preprocess.to_dict(),
            "grid": list(self.grid),
            "schema_version": SCHEMA_VERSION,
        }


@dataclass(frozen=True)
class RegionMatch:
    """A case with the region in it that is most like what was asked for.

    `box` is in fractions of the case's width and height; `case.score` is the mean over the asked patches of the
    highest cosine in the case.
    """

    case: Case
    box: Box


def cases_digest(ids: Sequence[str]) -> str:
    """A hash of the ids of cases in their order."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Vectors `[..., d]` at length one, float32; one without length stays zero."""
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    return (values / np.maximum(lengths, 1e-12)).astype(np.float32)


class RegionIndex:
    """The patch tokens of N cases, reduced by PCA to unit vectors `tokens [N, P, d]` float16.

    `mean [D]` and `components [d, D]` are the reduction's. Raises LibraryError for shapes that do not fit.
    """

    def __init__(self, config: RegionConfig, mean: np.ndarray, components: np.ndarray, tokens: np.ndarray) -> None:
        patches = config.grid[0] * config.grid[1]
        fits = tokens.ndim == 3 and tokens.shape[1:] == (patches, len(components)) and components.ndim == 2
        if not fits or components.shape[1:] != mean.shape or tokens.dtype != np.float16:
            raise LibraryError(
                f"Regions of {tokens.dtype} {list(tokens.shape)} with a reduction {list(components.shape)} do not fit "
                f"a grid of {config.grid}. Build the bundle again."
            )
        self.config, self.mean, self.components, self.tokens = config, mean, components, tokens

    @classmethod
    def fit(cls, config: RegionConfig, tokens: np.ndarray, seed: int = 0) -> RegionIndex:
        """The index of patch tokens `[N, P, D]`, memory mapped or not; the reduction is fitted on a seeded sample."""
        count, patches, width = tokens.shape
        random = np.random.default_rng(seed)
        chosen = random.permutation(count)[: max(1, FITTED_ON // patches)]
        sample = np.asarray(tokens[np.sort(chosen)], np.float32).reshape(-1, width)
        dimension = min(DIMENSION, width, len(sample))
        pca = PCA(dimension, svd_solver="covariance_eigh").fit(sample)
        mean, components = pca.mean_.astype(np.float32), pca.components_.astype(np.float32)
        reduced = np.empty((count, patches, dimension), np.float16)
        for start in range(0, count, BLOCK):
            part = np.asarray(tokens[start : start + BLOCK], np.float32)
            reduced[start : start + BLOCK] = unit_rows((part - mean) @ components.T)
        return cls(config, mean, components, reduced)

    @property
    def bytes_a_case(self) -> int:
        """The memory that a case takes."""
        return self.tokens[0].nbytes

    def reduce(self, patches: np.ndarray) -> np.ndarray:
        """Patches `[..., D]` as unit vectors `[..., d]` float32."""
        return unit_rows((patches.astype(np.float32) - self.mean) @ self.components.T)

    def inside(self, box: Box, size: tuple[int, int]) -> np.ndarray:
        """Bool `[h, w]`: the patches whose middle lies in a box of a picture of that (width, height), or the nearest.

        Raises LibraryError for a box that cannot be.
        """
        left, top, right, bottom = self.frame_box(box, size)
        height, width = self.config.grid
        rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
        found = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))[None]
        if not found.any():
            row = min(height - 1, int((top + bottom) / 2 * height))
            found[row, min(width - 1, int((left + right) / 2 * width))] = True
        return found

    def frame_box(self, box: Box, size: tuple[int, int]) -> Box:
        """A box of a picture, as fractions of the model's frame. Raises LibraryError for one that cannot be."""
        left, top, right, bottom = (float(value) for value in box)
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise LibraryError(
                f"The box left, top, right, bottom is {(left, top, right, bottom)}. Allowed: fractions of width and "
                "height in 0..1, left below right and top below bottom."
            )
        x0, y0, x1, y1 = self.config.preprocess.content_box(*size)
        height, width = self.config.preprocess.size
        return (
            (x0 + left * (x1 - x0)) / width,
            (y0 + top * (y1 - y0)) / height,
            (x0 + right * (x1 - x0)) / width,
            (y0 + bottom * (y1 - y0)) / height,
        )

    def picture_box(self, window: tuple[int, int, int, int], size: tuple[int, int]) -> Box:
        """Patches (left, top, right, bottom) as a box of a picture of that (width, height), cut to the picture."""
        height, width = self.config.grid
        x0, y0, x1, y1 = self.config.preprocess.content_box(*size)
        rows, columns = self.config.preprocess.size
        left, right = ((edge / width * columns - x0) / (x1 - x0) for edge in window[::2])
        top, bottom = ((edge / height * rows - y0) / (y1 - y0) for edge in window[1::2])
        left, top, right, bottom = np.clip([left, top, right, bottom], 0, 1).tolist()
        return left, top, right, bottom

    def search(self, query: np.ndarray, top_k: int = 6, excluded: Collection[int] = ()) -> list[tuple[int, float]]:
        """The `top_k` rows of best MaxSim to unit vectors `[Q, d]`, best first, equal scores in order of rows.

        MaxSim (Khattab & Zaharia 2020, arXiv 2004.12832): for each asked patch the highest cosine in the case, here
        their mean. A scan; the same answer as Qdrant's multi-vectors with MAX_SIM.
        """
        scores = np.concatenate(
            [
                (self.tokens[start : start + BLOCK].astype(np.float32) @ query.T).max(axis=1).mean(axis=1)
                for start in range(0, len(self.tokens), BLOCK)
            ]
        )
        order = np.argsort(-scores, kind="stable")
        rows = [int(row) for row in order if int(row) not in excluded][:top_k]
        return [(row, float(scores[row])) for row in rows]

    def match(self, query: np.ndarray, row: int, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """The window of `shape` (rows, columns) patches in a case that the asked patches agree on most.

        Each of them votes, by its cosine, for the patch that it is most like.
        """
        height, width = self.config.grid
        cosines = self.tokens[row].astype(np.float32) @ query.T
        best = cosines.argmax(axis=0)
        votes = np.bincount(best, weights=np.maximum(cosines.max(axis=0), 0), minlength=height * width)
        sums = np.pad(votes.reshape(height, width).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        rows, columns = min(shape[0], height), min(shape[1], width)
        inside = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
        # Of equal windows the middle one, so that what it holds lies in its middle too.
        places = np.argwhere(inside >= inside.max() - 1e-9)
        top, left = (int(place) for place in places[len(places) // 2])
        return left, top, left + columns, top + rows

    def regrown(self, rows: Sequence[int], added: Sequence[np.ndarray], ids: Sequence[str]) -> RegionIndex:
        """The index of some of its rows, then of new cases' patches `[h, w, D]`, by the same reduction."""
        new = [self.reduce(patches).reshape(1, -1, len(self.components)).astype(np.float16) for patches in added]
        tokens = np.concatenate([self.tokens[list(rows)], *new])
        return RegionIndex(replace(self.config, cases=cases_digest(ids)), self.mean, self.components, tokens)

    def check_cases(self, ids: Sequence[str]) -> None:
        """Raises LibraryError unless these are the ids of the cases, in their order."""
        if cases_digest(ids) != self.config.cases or len(ids) != len(self.tokens):
            raise LibraryError("The regions of this bundle are not those of its cases. Build the bundle again.")

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.config.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / CONFIG_FILE).write_text(text, "utf-8")
        arrays = {"mean": self.mean, "components": self.components, "tokens": self.tokens}
        save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, folder / WEIGHTS_FILE)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> RegionIndex:
        """Read an index's folder, strictly. Raises LibraryError for anything missing, unknown or that does not fit."""
        folder = Path(folder)
        file = f"{CONFIG_FILE} of the regions {str(folder)!r}"
        config = config_of(read_json(folder / CONFIG_FILE, file, LibraryError), file)
        try:
            arrays = load_file(folder / WEIGHTS_FILE)
        except (OSError, SafetensorError) as error:
            raise LibraryError(
                f"The regions {str(folder)!r} cannot be read: {error}. Build the bundle again."
            ) from error
        if set(arrays) != {"mean", "components", "tokens"}:
            raise LibraryError(f"The regions {str(folder)!r} hold {sorted(arrays)}. Build the bundle again.")
        if not all(np.isfinite(values).all() for values in arrays.values()):
            raise LibraryError(f"The regions {str(folder)!r} are not all finite numbers. Build the bundle again.")
        return cls(config, arrays["mean"], arrays["components"], arrays["tokens"])


def config_of(values: Mapping[str, Any], file: str) -> RegionConfig:
    """The settings of a config.json. Raises LibraryError."""
    check_shape(SHAPE, values, file, LibraryError)
    if values["schema_version"] != SCHEMA_VERSION:
        raise LibraryError(f"{file} has a schema that this medssl does not read. Update medssl, or build again.")
    try:
        preprocess = Preprocess.from_dict(values["preprocess"])
    except (TypeError, ValueError) as error:
        raise LibraryError(f"{file}: its preprocess settings do not fit: {error}") from error
    height, width = values["grid"]
    return RegionConfig(values["backbone"], preprocess, values["layer"], (height, width), values["cases"])


def spread(query: np.ndarray) -> np.ndarray:
    """At most MOST_QUERIES of some patches `[Q, d]`, evenly spread."""
    if len(query) <= MOST_QUERIES:
        return query
    return query[np.linspace(0, len(query) - 1, MOST_QUERIES).round().astype(int)]
