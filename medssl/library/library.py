"""The cases of one task under one backbone, searchable in Qdrant: in memory, in a folder, or on a server."""

from __future__ import annotations

import operator
import os
import re
import weakref
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset
from datasets import Image as ImageFeature
from numpy.typing import ArrayLike
from PIL import Image

from medssl.data.groups import group_key
from medssl.errors import ImageError, LibraryError
from medssl.images.read import read_image
from medssl.library.memory_store import MEMORY
from medssl.library.server_store import KEY_VARIABLE, TIMEOUT, URL_VARIABLE
from medssl.library.space import CaseSpace, in_space
from medssl.library.store import EXACT_UP_TO, Store
from medssl.library.stores import is_server, release, shared_store
from medssl.library.vectors import CaseVectors, Exclusion, unit_vectors
from medssl.runtime import default_cache

COLUMNS = ("id", "image", "label", "group_id", "source", "embedding")
# float32 scores of equal vectors differ in their last digits; candidates this close are scored again in float64.
TOLERANCE = 1e-5
SPARE = 8


@dataclass(frozen=True)
class Case:
    """One library image that was found; `score` is its cosine to the query, `image` its thumbnail or None.

    `embedding [D]` float32 is what was compared, in `space` (None: as it is).
    """

    id: str
    label: str
    score: float
    group_id: str
    source: str
    image: Image.Image | None
    embedding: np.ndarray | None = field(default=None, repr=False, compare=False)
    space: CaseSpace | None = field(default=None, repr=False, compare=False)


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


def case_vectors(dataset: Dataset, space: CaseSpace | None = None) -> CaseVectors:
    """What a store holds of a data set of cases in a space. Raises LibraryError for incomplete embeddings."""
    vectors = np.asarray(in_space(space, embedding_matrix(dataset)), np.float32)
    return CaseVectors.of(vectors, dataset["group_id"])


def plain_name(name: str) -> str:
    """What the plain library beside one in another space is called."""
    return f"{name}.plain"


class CaseLibrary:
    """The cases of a data set, found by the cosine of their embeddings `[D]`, in a fixed order.

    `location`: None takes MEDSSL_QDRANT_URL (with MEDSSL_QDRANT_API_KEY) where set, else memory for up to EXACT_UP_TO
    cases and the folder `libraries` of medssl's cache for more; ":memory:"; an http(s) address of a Qdrant server (its
    port where it is not 6333); an opened Store; anything else is a folder. A folder or server keeps one collection for
    each `name` and builds it anew only when the cases differ. It holds row numbers, group numbers and unit vectors
    only; everything else of a case stays in the data set. Up to EXACT_UP_TO cases all are compared; above, a graph
    (HNSW) proposes candidates, which are compared again in float64. `space` maps embeddings before they are compared
    (None: the plain space); familiarity always compares plain embeddings, where images of other kinds stand out more,
    so that a library in another space keeps a plain one beside it. Raises LibraryError.
    """

    def __init__(
        self,
        dataset: Dataset,
        location: str | Store | None = None,
        name: str = "cases",
        timeout: int = TIMEOUT,
        space: CaseSpace | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,150}", name) or "--" in name:
            raise LibraryError(f"A library cannot be named {name!r}: use letters, digits, '.', '_' and single '-'.")
        self.name, self.space = name, space
        self._plain: CaseLibrary | None = None
        self._read(dataset)
        cases = case_vectors(dataset, space)
        self.dimension, self._group_numbers = cases.dimension, cases.groups.tolist()
        self.collection = ""
        self._closed, self._drop = False, None
        if isinstance(location, Store):
            self._store = location
            self._store.libraries.add(self)
        else:
            place = place_of(location, len(cases))
            api_key = (os.environ.get(KEY_VARIABLE) or None) if is_server(place) else None
            self._store = shared_store(place, api_key, timeout, self)
        self.location = self._store.location
        try:
            self.collection = self._store.collection_for(name, cases)
        finally:
            if not self.collection:
                self.close()
        if self._store.in_memory:
            # A memory collection goes with its library. No lock here: this may run inside any other call.
            self._drop = weakref.finalize(self, self._store.drop, self.collection)
            self._drop.atexit = False
        if space is not None:
            self._open_plain(dataset, location, timeout)

    def _open_plain(self, dataset: Dataset, location: str | Store | None, timeout: int) -> None:
        """Have the library that familiarity asks."""
        opened = False
        try:
            self._plain = CaseLibrary(dataset, location, plain_name(self.name), timeout)
            opened = True
        finally:
            if not opened:
                self.close()

    @property
    def plain(self) -> CaseLibrary:
        """The library of the same cases that compares embeddings as they are."""
        return self if self._plain is None else self._plain

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
        release(self._store, self)
        if self._plain is not None:
            self._plain.close()

    def search(
        self, embedding: ArrayLike, top_k: int = 6, exclude_group: str | None = None, exclude_id: str | None = None
    ) -> list[Case]:
        """The `top_k` cases nearest to an embedding `[D]`, best first; equal scores in the data set's order.

        Cases of the excluded group or id are left out; where fewer are left, fewer come back. Raises LibraryError.
        """
        rows, scores = self._nearest(embedding, top_k, exclude_group, exclude_id)
        return [self.case_at(row, score) for row, score in zip(rows, scores, strict=True)]

    def search_batch(
        self, embeddings: np.ndarray, top_k: int, exclude_ids: Sequence[str], exclude_group: str | None = None
    ) -> list[list[Case]]:
        """What `search` gives for each embedding of `[B, D]`, without pictures; in memory by one matrix product.

        `exclude_ids [B]` are left out each for its own embedding. Raises LibraryError.
        """
        if not self._store.in_memory:  # of a million cases a matrix would not be small
            asked = zip(embeddings, exclude_ids, strict=True)
            return [self.search(embedding, top_k, exclude_group, case_id) for embedding, case_id in asked]
        queries = np.stack([self._checked(embedding) for embedding in embeddings])
        wanted = min(_positive(top_k), len(self))
        # float32 finds the candidates, which are then scored as `search` scores them.
        similarity = queries.astype(np.float32) @ self._units.T
        if exclude_group is not None:
            similarity[:, self._rows_of(exclude_group)] = -np.inf
        for row, case_id in enumerate(exclude_ids):
            similarity[row, self._rows_of_id.get(case_id, [])] = -np.inf
        return [self._best(scores, query, wanted) for scores, query in zip(similarity, queries, strict=True)]

    @cached_property
    def _units(self) -> np.ndarray:
        """All embeddings at length one, float32 `[N, D]`."""
        return unit_vectors(np.asarray(in_space(self.space, np.asarray(self._embeddings[:]["embedding"])), np.float32))

    def _best(self, similarity: np.ndarray, query: np.ndarray, wanted: int) -> list[Case]:
        """The best cases of float32 similarities `[N]`, -inf for excluded ones, without pictures."""
        wanted = min(wanted, int(np.isfinite(similarity).sum()))
        if not wanted:
            return []
        edge = np.partition(similarity, -wanted)[-wanted] - TOLERANCE
        rows = np.flatnonzero(similarity >= edge)
        scores = self._cosines(rows, query)
        best = np.argsort(-scores, kind="stable")[:wanted]
        return [self.case_at(int(rows[at]), float(scores[at]), pictured=False) for at in best]

    def find(self, case_id: str, embedding: ArrayLike) -> Case:
        """The case of that id, scored against an embedding `[D]`. Raises LibraryError where there is none."""
        query, rows = self._checked(embedding), self._rows_of_id.get(case_id)
        if not rows:
            raise LibraryError(f"There is no case {case_id!r} among the {len(self)} cases; search gives their ids.")
        return self.case_at(rows[0], float(self._cosines(rows[:1], query)[0]))

    def excluded_rows(self, group_id: str | None, case_id: str | None) -> frozenset[int]:
        """The rows of a group's cases and of those of an id."""
        return self._exclusion(group_id, case_id).rows

    def case_at(self, row: int, score: float = 1.0, pictured: bool = True) -> Case:
        """The case in that row, with a score (default: that against itself) and, if `pictured`, its picture."""
        return Case(
            id=self._ids[row],
            label=self._labels[row],
            score=score,
            group_id=self._groups[row],
            source=self._sources[row],
            image=self._thumbnail(row) if pictured else None,
            embedding=np.asarray(self._embeddings[row]["embedding"], np.float32),
            space=self.space,
        )

    def _cosines(self, rows: ArrayLike, query: np.ndarray) -> np.ndarray:
        """The cosines `[N]` in float64 of some rows to a query of length one."""
        cases = in_space(self.space, np.asarray(self._embeddings[rows]["embedding"], np.float64))
        scores = (cases * query).sum(axis=1) / np.sqrt((cases * cases).sum(axis=1))
        return np.clip(scores, -1.0, 1.0)

    def familiarity(
        self, embedding: ArrayLike, exclude_id: str | None = None, exclude_group: str | None = None, k: int = 5
    ) -> float:
        """Mean cosine of an embedding `[D]` to its k nearest cases (of all that are left, where these are fewer), all
        as they are, whatever space the library compares cases in.

        Raises LibraryError where nothing is left.
        """
        _, scores = self.plain._nearest(embedding, k, exclude_group, exclude_id)
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
        exclusion = self._exclusion(exclude_group, exclude_id)
        most = len(self) - len(exclusion.rows)
        wanted = min(top_k, most)
        if wanted == 0:
            return [], []
        # Only ties at the edge ask for another round.
        limit = min(most, wanted + SPARE)
        while True:
            hits = self._store.query(self.collection, query, limit, exclusion)
            if len(hits) < wanted:
                raise LibraryError(f"Cases have gone from collection {self.collection!r} of {self.location}. Restart.")
            edge = hits[wanted - 1].score - TOLERANCE
            if limit == most or hits[-1].score < edge:
                break
            limit = min(most, 2 * limit)
        rows = np.sort([hit.id for hit in hits if hit.score >= edge])
        scores = self._cosines(rows, query)
        best = np.argsort(-scores, kind="stable")[:wanted]
        return rows[best].tolist(), scores[best].tolist()

    def _exclusion(self, group: str | None, case_id: str | None) -> Exclusion:
        """The cases of a group and of an id, by their rows and by the group's number."""
        of_group = self._rows_of(group) if group is not None else []
        of_id = self._rows_of_id.get(case_id, []) if case_id is not None else []
        number = self._group_numbers[of_group[0]] if of_group else None
        return Exclusion(frozenset(of_group) | frozenset(of_id), number, tuple(of_id))

    def _rows_of(self, group: str) -> list[int]:
        """The rows of a group's cases, also where its id is spelled otherwise (see `group_key`)."""
        known = group if group in self._rows_of_group else self._spelled.get(group_key(group))
        return self._rows_of_group[known] if known is not None else []

    @cached_property
    def _spelled(self) -> dict[str, str]:
        """How the cases write each group's id."""
        return {group_key(group): group for group in self._rows_of_group}

    def _checked(self, embedding: ArrayLike) -> np.ndarray:
        """The embedding at length one in the library's space, float64 `[D]`."""
        try:
            query = np.asarray(embedding, np.float64)
        except (TypeError, ValueError) as error:
            raise LibraryError(f"An embedding must be {self.dimension} numbers: {error}.") from error
        if query.shape != (self.dimension,):
            raise LibraryError(
                f"The embedding has the shape {query.shape}; the cases have ({self.dimension},). "
                "Both must come from the same backbone and pooling."
            )
        query = in_space(self.space, query)
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


def embedded_place(cases: int) -> str:
    """Where a library of that many cases is kept without a server."""
    return MEMORY if cases <= EXACT_UP_TO else str(default_cache() / "libraries")


def place_of(location: str | None, cases: int) -> str:
    """Where a library of that many cases is kept: a location as given, made absolute, or the one by default."""
    place = str(location or os.environ.get(URL_VARIABLE) or embedded_place(cases))
    return place if place == MEMORY or is_server(place) else str(Path(place).expanduser().resolve())


def _positive(top_k: int) -> int:
    try:
        number = operator.index(top_k)
    except TypeError as error:
        raise LibraryError(f"The number of cases must be a whole number, not {top_k!r}.") from error
    if number < 1:
        raise LibraryError(f"The number of cases must be at least 1, not {number}.")
    return number
