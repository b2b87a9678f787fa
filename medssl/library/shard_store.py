"""Libraries in a folder: one shard of Qdrant's embedded engine for each, whole or not there.

    FOLDER/.lock                        held while a shard is looked for, built or removed
    FOLDER/NAME--FINGERPRINT/shard/     the engine's own files
    FOLDER/NAME--FINGERPRINT/facts.json how many cases, and how wide a search of the graph has to be
    FOLDER/NAME--FINGERPRINT/.users     held, shared, by every process that searches it

Several processes may search one shard: after its first opening the engine leaves its files as they are.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
import portalocker
import qdrant_edge as engine

from medssl.errors import LibraryError
from medssl.library.store import EXACT_UP_TO, Hit, Store
from medssl.library.vectors import CaseVectors, Exclusion

UPSERT_BATCH = 512
GRAPH_DEGREE, GRAPH_WIDTH = 16, 128  # HNSW's m and ef_construct
WIDTHS = (128, 256, 512, 1024, 2048, 4096)
RECALL, RECALL_AT, RECALL_QUERIES = 0.995, 10, 100  # asked of a graph: more than the 0.99 that is promised
BLOCK = 1 << 15
PICKLES = ("meta.json", "collection")  # what Qdrant's local mode, used before, leaves in a folder
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardFacts:
    """What is known of a complete shard. `width` is HNSW's ef, None where every case is compared; `lowest_recall` that
    of searches among all cases or among those of other groups than the query's, whichever is lower.
    """

    cases: int
    dimension: int
    width: int | None = None
    lowest_recall: float | None = None


@dataclass
class OpenShard:
    """A shard that this process searches, with its facts and the lock that says so."""

    shard: engine.EdgeShard
    facts: ShardFacts
    users: IO[bytes]

    def close(self) -> None:
        """Let go of the files and of the lock."""
        self.shard.close()
        self.users.close()


class EngineError(Exception):
    """What the embedded engine raised."""


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """The engine raises bare Exceptions; they leave as EngineError."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  nothing narrower is raised by the engine
        raise EngineError(str(error)) from error


class ShardStore(Store):
    """The libraries in one folder. Raises LibraryError where it cannot be used."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.folder = Path(location)
        self.open: dict[str, OpenShard] = {}
        with self.plain_errors("opened"):
            self.folder.mkdir(parents=True, exist_ok=True)
            if all((self.folder / name).exists() for name in PICKLES):
                log.warning(
                    "%s holds a library of an older medssl, kept in pickles, which run code when they are read: it is "
                    "not opened. The cases are indexed anew beside it; delete %s there, nothing is lost.",
                    self.folder,
                    " and ".join(PICKLES),
                )

    @contextlib.contextmanager
    def plain_errors(self, verb: str) -> Iterator[None]:
        """Turn what the engine and the disk raise into a LibraryError that says what to do."""
        try:
            yield
        except (OSError, EngineError, portalocker.LockException) as error:
            raise LibraryError(
                f"The case library in {self.location} cannot be {verb}: {error}. Check that the folder can be written "
                "to and has room; deleting it loses nothing, as it is rebuilt from the bundle's cases."
            ) from error

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No other process looks for, builds or removes a shard here meanwhile; waits until that is so."""
        with (self.folder / ".lock").open("ab") as held:
            try:
                portalocker.lock(held, portalocker.LOCK_EX | portalocker.LOCK_NB)
            except portalocker.LockException:
                log.warning("Another process builds a library in %s; waiting for it.", self.folder)
                portalocker.lock(held, portalocker.LOCK_EX)
            yield

    def collection_for(self, name: str, cases: CaseVectors) -> str:
        """See Store. A shard that is damaged is built anew; one of other cases under this name is removed."""
        collection = f"{name}--{cases.fingerprint}"
        with self.lock, self.plain_errors("built"):
            if collection in self.open:
                return collection
            with self.alone():
                found = self.load(collection, len(cases))
                if found is None:
                    self.build(collection, cases)
                    found = self.load(collection, len(cases))
                if found is None:
                    raise LibraryError(f"The library that was just built in {self.folder} cannot be read. Try again.")
                self.open[collection] = found
                self.sweep(name)
        return collection

    def load(self, collection: str, count: int) -> OpenShard | None:
        """The complete shard of that name, or None where there is none or it is damaged."""
        place = self.folder / collection
        if not place.is_dir():
            return None
        users = (place / ".users").open("ab")
        try:
            portalocker.lock(users, portalocker.LOCK_SH | portalocker.LOCK_NB)
            facts = ShardFacts(**json.loads((place / "facts.json").read_text("utf-8")))
            with engine_errors():
                shard = engine.EdgeShard.load(str(place / "shard"))
                held = shard.count(engine.CountRequest())
            if held == count == facts.cases:
                return OpenShard(shard, facts, users)
            reason: object = f"it holds {held} of {count} cases"
        except (EngineError, OSError, ValueError, TypeError) as error:
            reason = error
        users.close()
        log.warning("The library in %s is damaged and is built anew: %s", place, reason)
        return None

    def build(self, collection: str, cases: CaseVectors) -> None:
        """Write the shard beside its place, then rename: a kill at any moment leaves the old state."""
        for left in self.folder.glob(".building-*"):  # of killed builds: whoever builds now holds the lock
            shutil.rmtree(left)
        beside = self.folder / f".building-{uuid.uuid4().hex[:8]}"
        beside.mkdir()
        try:
            facts = write_shard(beside / "shard", cases)
            (beside / "facts.json").write_text(json.dumps(asdict(facts)), "utf-8")
            if (self.folder / collection).exists():
                shutil.rmtree(self.folder / collection)
            beside.rename(self.folder / collection)
        finally:
            if beside.exists():
                shutil.rmtree(beside)

    def sweep(self, name: str) -> None:
        """Remove the shards of that name that no process searches."""
        for place in self.folder.glob(f"{name}--*"):
            if place.name in self.open:
                continue
            with (place / ".users").open("ab") as users:
                try:
                    portalocker.lock(users, portalocker.LOCK_EX | portalocker.LOCK_NB)
                except portalocker.LockException:
                    continue
            shutil.rmtree(place)

    def query(self, collection: str, vector: np.ndarray, limit: int, exclusion: Exclusion) -> list[Hit]:
        """See Store: by a scan, or through the graph where the shard has one."""
        found = self.open.get(collection)
        if found is None:
            raise LibraryError(f"The case library in {self.location} is closed. Make a new one.")
        width, filters = found.facts.width, without(exclusion)
        exact = engine.SearchParams(exact=True)
        params = exact if width is None else engine.SearchParams(hnsw_ef=max(width, limit))
        with self.plain_errors("searched"), engine_errors():
            points = found.shard.query(nearest(vector, limit, params, filters))
            if len(points) < limit and width is not None:  # the graph does not reach all that are left
                points = found.shard.query(nearest(vector, limit, exact, filters))
        return [Hit(int(point.id), point.score) for point in points]

    def drop(self, collection: str) -> None:
        """Nothing: other processes may search the shard, and this one may open it again."""

    def close(self) -> None:
        """Close every shard."""
        with self.lock:
            while self.open:
                self.open.popitem()[1].close()


def nearest(
    vector: np.ndarray, limit: int, params: engine.SearchParams, filters: engine.Filter | None = None
) -> engine.QueryRequest:
    """The engine's question for the `limit` nearest to a vector `[D]`."""
    return engine.QueryRequest(limit=limit, query=engine.Query.Nearest(vector.tolist()), params=params, filter=filters)


def without(exclusion: Exclusion) -> engine.Filter | None:
    """The engine's filter that leaves these cases out."""
    conditions: list = []
    if exclusion.group is not None:
        conditions.append(engine.FieldCondition("group", match=engine.MatchValue(exclusion.group)))
    if exclusion.rows_of_id:
        conditions.append(engine.HasIdCondition(set(exclusion.rows_of_id)))
    return engine.Filter(must_not=conditions) if conditions else None


def write_shard(place: Path, cases: CaseVectors) -> ShardFacts:
    """Write a shard of all cases, with a graph where there are many, and measure how wide its searches have to be."""
    graph = len(cases) > EXACT_UP_TO
    if graph:
        log.warning("Indexing %s cases in %s: once, for minutes.", f"{len(cases):,}", place.parent.parent)
    config = engine.EdgeConfig(
        vectors=engine.EdgeVectorParams(size=cases.dimension, distance=engine.Distance.Dot),
        hnsw_config=engine.HnswIndexConfig(m=GRAPH_DEGREE, ef_construct=GRAPH_WIDTH, full_scan_threshold=1000),
        # A threshold of 0 builds no graph at all.
        optimizers=engine.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1 if graph else 0),
        # A build that was interrupted is thrown away, so that a log to repair it from would be written for nothing.
        wal_enabled=False,
    )
    place.mkdir()
    vectors, groups = cases.unit, cases.groups.tolist()
    with engine_errors():
        shard = engine.EdgeShard.create(str(place), config)
        shard.update(engine.UpdateOperation.create_field_index("group", engine.PayloadSchemaType.Integer))
        for start in range(0, len(vectors), UPSERT_BATCH):
            rows = enumerate(vectors[start : start + UPSERT_BATCH].tolist(), start)
            points = [engine.Point(row, vector, {"group": groups[row]}) for row, vector in rows]
            shard.update(engine.UpdateOperation.upsert_points(points))
        if graph:
            shard.optimize()
        width, recall = search_width(shard, cases) if graph else (None, None)
        shard.flush()
        shard.close()
        # The first opening writes its own defaults into the files; later ones leave them as they are.
        engine.EdgeShard.load(str(place)).close()
    return ShardFacts(len(cases), cases.dimension, width, recall)


def search_width(shard: engine.EdgeShard, cases: CaseVectors) -> tuple[int | None, float]:
    """The smallest ef with which the graph finds enough of the nearest to queries near the cases, and the share found.

    Both among all cases and among those of other groups, as cases are searched: the nearest of a query's own group are
    easily found, and the others lie about equally far. None for the ef where none of WIDTHS does: then every case is
    compared.
    """
    random, vectors = np.random.default_rng(0), cases.unit
    rows = random.choice(len(vectors), RECALL_QUERIES, replace=len(vectors) < RECALL_QUERIES)
    noise = random.normal(size=(len(rows), vectors.shape[1])) * 0.3 / np.sqrt(vectors.shape[1])
    queries = unit_rows(vectors[rows] + noise)
    own = cases.groups[rows]
    truths = [exact_rows(vectors, queries, RECALL_AT), exact_rows(vectors, queries, RECALL_AT, (cases.groups, own))]
    filters: list[list[engine.Filter | None]] = [[None] * len(rows)]
    filters.append([without(Exclusion(group=int(group))) for group in own])
    recall = 0.0
    for width in WIDTHS:
        params = engine.SearchParams(hnsw_ef=width)
        recalls = []
        for truth, asked in zip(truths, filters, strict=True):
            found = [
                {int(point.id) for point in shard.query(nearest(query, RECALL_AT, params, left_out))}
                for query, left_out in zip(queries, asked, strict=True)
            ]
            recalls.append(recall_of(truth, found))
        recall = min(recalls)
        if recall >= RECALL:
            return width, recall
    return None, recall


def recall_of(truth: Sequence[Sequence[int]], found: Sequence[set[int]]) -> float:
    """The mean share of the rows of each query that were found; a query that has none counts as found."""
    shares = [len(found_rows & set(best)) / len(best) for best, found_rows in zip(truth, found, strict=True) if best]
    return float(np.mean(shares)) if shares else 1.0


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    """The rows of `[N,D]` at length one, float32."""
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def exact_rows(
    vectors: np.ndarray, queries: np.ndarray, count: int, left_out: tuple[np.ndarray, np.ndarray] | None = None
) -> list[list[int]]:
    """The rows of the `count` vectors `[N,D]` nearest to each query `[Q,D]`, by comparing all, block by block.

    `left_out` are the groups `[N]` of the vectors, and for each query `[Q]` the one whose vectors do not count.
    """
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), BLOCK):
        block = queries @ vectors[start : start + BLOCK].T
        if left_out is not None:
            groups, own = left_out
            block[groups[None, start : start + BLOCK] == own[:, None]] = -np.inf
        scores = np.concatenate([scores, block], axis=1)
        rows = np.concatenate([rows, np.tile(np.arange(start, start + block.shape[1]), (len(queries), 1))], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    return [row[score > -np.inf].tolist() for row, score in zip(rows, scores, strict=True)]
