"""The cases of one task under one backbone, searchable in Qdrant: in memory, in a folder, or on a server."""

from __future__ import annotations

import operator
import os
import re
import weakref
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset
from datasets import Image as ImageFeature
from numpy.typing import ArrayLike
from PIL import Image

from medssl.errors import DataError, ImageError, LibraryError
from medssl.images.read import read_image
from medssl.library.stores import KEY_VARIABLE, MEMORY, URL_VARIABLE, is_server, shared_store
from medssl.metrics.retrieval import unit

COLUMNS = ("id", "image", "label", "group_id", "source", "embedding")
# float32 scores of equal vectors differ in their last digits; candidates this close are scored again in float64.
TOLERANCE = 1e-5
SPARE = 8
SERVER_TIMEOUT = 30


@dataclass(frozen=True)
class Case:
    """One library image that was found; `score` is its cosine to the query, `image` its thumbnail or None.

    `embedding [D]` float32 is what was compared.
    """

    id: str
    label: str
    score: float
    group_id: str
    source: str
    image: Image.Image | None
    embedding: np.ndarray | None = field(default=None, repr=False, compare=False)


def embedding_matrix(dataset: Dataset) -> np.ndarray:
    """The embeddings of a data set as float32 `[N,D]`. Raises LibraryError where lengths differ or one is missing."""
    column = dataset.select_columns(["embedding"]).with_format("arrow")[:]["embedding"].combine_chunks()
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise LibraryError(f"The embedding column holds {kind}; it must hold one list of numbers a case.")
    values = column.flatten()
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    if column.null_count or values.null_count or len(widths) != 1 or not widths[0]:
        raise LibraryError(f"The embeddings are incomplete or of different lengths ({widths}). Embed the data again.")
    return values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(len(column), widths[0])


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors `[N,D]` at length one, float32. Raises LibraryError naming the rows that have no direction."""
    try:
        return unit(vectors.astype(np.float64)).astype(np.float32)
    except DataError as error:
        raise LibraryError(f"The cases cannot be searched: {error}") from error


class CaseLibrary:
    """The cases of a data set, found by the cosine of their embeddings `[D]`; exact, in a fixed order.

    `location`: None takes MEDSSL_QDRANT_URL (with MEDSSL_QDRANT_API_KEY) where set, else memory; ":memory:"; an
    http(s) address of a Qdrant server (its port where it is not 6333); anything else is a folder. A folder or server
    keeps one collection for each `name` and builds it anew only when the embeddings differ. Qdrant holds row numbers
    and unit vectors only; everything else of a case stays in the data set. Raises LibraryError.
    """

    def __init__(
        self, dataset: Dataset, location: str | None = None, name: str = "cases", timeout: int = SERVER_TIMEOUT
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,150}", name) or "--" in name:
            raise LibraryError(f"A library cannot be named {name!r}: use letters, digits, '.', '_' and single '-'.")
        self.name = name
        self._read(dataset)
        vectors = unit_vectors(embedding_matrix(dataset))
        self.dimension = vectors.shape[1]
        location = str(location or os.environ.get(URL_VARIABLE) or MEMORY)
        if location != MEMORY and not is_server(location):
            location = str(Path(location).expanduser().resolve())
        self.location, self.collection = location, ""
        api_key = (os.environ.get(KEY_VARIABLE) or None) if is_server(location) else None
        self._closed, self._drop = False, None
        self._store = shared_store(location, api_key, timeout, self)
        try:
            self.collection = self._store.collection_for(name, vectors)
        finally:
            if not self.collection:
                self.close()
        if self._store.in_memory:
            # A memory collection goes with its library. No lock here: this may run inside any other call.
            self._drop = weakref.finalize(self, self._store.client.delete_collection, self.collection)
            self._drop.atexit = False

    def _read(self, dataset: Dataset) -> None:
        missing = [column for column in COLUMNS if column not in dataset.column_names]
        if missing:
            raise LibraryError(
                f"The cases lack the columns {', '.join(missing)}; a library needs {', '.join(COLUMNS)}."
            )
        if len(dataset) == 0:
            raise LibraryError("There are no cases to search: the data set is empty.")
        if not isinstance(dataset.features["label"], ClassLabel):
            raise LibraryError("The label column of the cases must be a ClassLabel, so that every label has a name.")
        table = dataset.select_columns(["id", "label", "group_id", "source"]).with_format(None)[:]
        names = dataset.features["label"].names
        if any(label is None or not 0 <= label < len(names) for label in table["label"]):
            raise LibraryError(f"Some cases have no label, or one outside {names}.")
        self._ids, self._groups, self._sources = table["id"], table["group_id"], table["source"]
        self._labels = [names[label] for label in table["label"]]
        self._rows_of_group, self._rows_of_id = defaultdict(list), defaultdict(list)
        for row, (group, case_id) in enumerate(zip(self._groups, self._ids, strict=True)):
            self._rows_of_group[group].append(row)
            self._rows_of_id[case_id].append(row)
        self._embeddings = dataset.select_columns(["embedding"]).with_format("numpy")
        self._images = dataset.select_columns(["image"]).with_format(None)
        if isinstance(self._images.features["image"], ImageFeature):
            self._images = self._images.cast_column("image", ImageFeature(decode=False))

    def __len__(self) -> int:
        return len(self._ids)

    def __enter__(self) -> CaseLibrary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the client (a folder is freed with its last library); searching afterwards is an error."""
        if self._closed:
            return
        self._closed = True
        if self._drop is not None:
            self._drop()
        self._store.release(self)

    def search(
        self, embedding: ArrayLike, top_k: int = 6, exclude_group: str | None = None, exclude_id: str | None = None
    ) -> list[Case]:
        """The `top_k` cases nearest to an embedding `[D]`, best first; equal scores in the data set's order.

        Cases of the excluded group or id are left out; where fewer are left, fewer come back. Raises LibraryError.
        """
        rows, scores = self._nearest(embedding, top_k, exclude_group, exclude_id)
        return [self._case(row, score) for row, score in zip(rows, scores, strict=True)]

    def find(self, case_id: str, embedding: ArrayLike) -> Case:
        """The case of that id, scored against an embedding `[D]`. Raises LibraryError where there is none."""
        query, rows = self._checked(embedding), self._rows_of_id.get(case_id)
        if not rows:
            raise LibraryError(f"There is no case {case_id!r} among the {len(self)} cases; search gives their ids.")
        return self._case(rows[0], float(self._cosines(rows[:1], query)[0]))

    def _case(self, row: int, score: float) -> Case:
        return Case(
            id=self._ids[row],
            label=self._labels[row],
            score=score,
            group_id=self._groups[row],
            source=self._sources[row],
            image=self._thumbnail(row),
            embedding=np.asarray(self._embeddings[row]["embedding"], np.float32),
        )

    def _cosines(self, rows: ArrayLike, query: np.ndarray) -> np.ndarray:
        """The cosines `[N]` in float64 of some rows to a query of length one."""
        cases = np.asarray(self._embeddings[rows]["embedding"], np.float64)
        scores = (cases * query).sum(axis=1) / np.sqrt((cases * cases).sum(axis=1))
        return np.clip(scores, -1.0, 1.0)

    def familiarity(
        self, embedding: ArrayLike, exclude_id: str | None = None, exclude_group: str | None = None, k: int = 5
    ) -> float:
        """Mean cosine of an embedding `[D]` to its k nearest cases (of all that are left, where these are fewer).

        Raises LibraryError where nothing is left.
        """
        _, scores = self._nearest(embedding, k, exclude_group, exclude_id)
        if not scores:
            raise LibraryError(
                f"Every one of the {len(self)} cases is left out (group {exclude_group!r}, id {exclude_id!r}), so "
                "there is nothing to compare with."
            )
        return float(np.mean(scores))

    def _nearest(
        self, embedding: ArrayLike, top_k: int, exclude_group: str | None, exclude_id: str | None
    ) -> tuple[list[int], list[float]]:
        """Rows and cosines of the nearest cases that are not excluded."""
        if self._closed:
            raise LibraryError(f"The case library {self.name!r} is closed. Make a new one.")
        query, top_k = self._checked(embedding), _positive(top_k)
        excluded: set[int] = set()
        if exclude_group is not None:
            excluded.update(self._rows_of_group.get(exclude_group, ()))
        if exclude_id is not None:
            excluded.update(self._rows_of_id.get(exclude_id, ()))
        wanted = min(top_k, len(self) - len(excluded))
        if wanted == 0:
            return [], []
        # All excluded cases may come first, and no more than these. Only ties at the edge ask for another round.
        limit = min(len(self), wanted + len(excluded) + SPARE)
        while True:
            hits = self._store.query(self.collection, query, limit)
            left = [hit for hit in hits if hit.id not in excluded]
            if len(left) < wanted:
                raise LibraryError(f"Cases have gone from collection {self.collection!r} of {self.location}. Restart.")
            edge = left[wanted - 1].score - TOLERANCE
            if limit == len(self) or hits[-1].score < edge:
                break
            limit = min(len(self), 2 * limit)
        rows = np.sort([int(hit.id) for hit in left if hit.score >= edge])
        scores = self._cosines(rows, query)
        best = np.argsort(-scores, kind="stable")[:wanted]
        return rows[best].tolist(), scores[best].tolist()

    def _checked(self, embedding: ArrayLike) -> np.ndarray:
        """The embedding at length one, float64 `[D]`."""
        try:
            query = np.asarray(embedding, np.float64)
        except (TypeError, ValueError) as error:
            raise LibraryError(f"An embedding must be {self.dimension} numbers: {error}.") from error
        if query.shape != (self.dimension,):
            raise LibraryError(
                f"The embedding has the shape {query.shape}; the cases have ({self.dimension},). "
                "Both must come from the same backbone and pooling."
            )
        norm = np.linalg.norm(query)
        if not np.isfinite(norm) or norm == 0:
            raise LibraryError("The embedding is all zero or holds numbers that are not finite; it has no neighbours.")
        return query / norm

    def _thumbnail(self, row: int) -> Image.Image | None:
        record = self._images[row]["image"]
        # Bytes only: a path in a stranger's parquet would name a file of this machine.
        if not isinstance(record, dict) or not isinstance(record.get("bytes"), bytes):
            return None
        try:
            return read_image(record["bytes"])
        except ImageError:
            return None  # the case still counts, only its picture cannot be shown


def _positive(top_k: int) -> int:
    try:
        number = operator.index(top_k)
    except TypeError as error:
        raise LibraryError(f"The number of cases must be a whole number, not {top_k!r}.") from error
    if number < 1:
        raise LibraryError(f"The number of cases must be at least 1, not {number}.")
    return number
