"""Libraries on a Qdrant server or cluster: a collection for each set of cases, and an alias that names the current one.

A collection is called NAME--FINGERPRINT and filled row by row under fixed numbers, so that whoever was interrupted, and
whoever fills it at the same moment, writes the same points; the alias NAME moves to it when it is complete.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from medssl.errors import LibraryError
from medssl.library.store import EXACT_UP_TO, Hit, Store
from medssl.library.vectors import CaseVectors, Exclusion

URL_VARIABLE, KEY_VARIABLE = "MEDSSL_QDRANT_URL", "MEDSSL_QDRANT_API_KEY"
TIMEOUT = 30
WIDTH = 512  # HNSW's ef
OVERSAMPLING = 3.0  # of quantised candidates, which are compared again by their own vectors
TRIES, PAUSE = 4, 0.5  # of one batch; the pause doubles
QUANTIZATION = ("none", "int8", "binary")
EXACT = models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ServerSettings:
    """How a new collection is made, and how many batches are on their way at once.

    `shards` and `replicas` are the server's own defaults where None. `quantization` is one of QUANTIZATION; searches
    compare candidates again by their full vectors. `on_disk` keeps the full vectors on disk. Raises LibraryError.
    """

    shards: int | None = None
    replicas: int | None = None
    quantization: str = "none"
    on_disk: bool = False
    degree: int = 16
    construction_width: int = 128
    batch: int = 256
    parallel: int = 4

    def __post_init__(self) -> None:
        if self.quantization not in QUANTIZATION:
            raise LibraryError(f"There is no quantization {self.quantization!r}. Allowed: {', '.join(QUANTIZATION)}.")
        for name in ("shards", "replicas", "degree", "construction_width", "batch", "parallel"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LibraryError(f"{name} is {value}; allowed: a whole number from 1 on.")

    def collection(self, dimension: int) -> dict[str, Any]:
        """The arguments of Qdrant's `create_collection` for vectors of that dimension."""
        kept: dict[str, Any] = {
            "int8": models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
            ),
            "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
        }
        return {
            "vectors_config": models.VectorParams(
                size=dimension, distance=models.Distance.DOT, on_disk=self.on_disk or None
            ),
            "hnsw_config": models.HnswConfigDiff(m=self.degree, ef_construct=self.construction_width),
            "quantization_config": kept.get(self.quantization),
            "shard_number": self.shards,
            "replication_factor": self.replicas,
        }


class ServerStore(Store):
    """The libraries on the server at an http(s) address. Raises LibraryError where it does not answer."""

    def __init__(
        self,
        location: str,
        api_key: str | None = None,
        timeout: int = TIMEOUT,
        settings: ServerSettings | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(location)
        self.settings, self.progress = settings or ServerSettings(), progress
        self.sizes: dict[str, int] = {}
        with self.plain_errors("opened"):
            self.client = QdrantClient(url=location, api_key=api_key, timeout=timeout, check_compatibility=False)
            self.client.get_collections()

    @contextlib.contextmanager
    def plain_errors(self, verb: str) -> Iterator[None]:
        """Turn what the server and the network raise into a LibraryError that says what to do."""
        try:
            yield
        except ResponseHandlingException as error:
            raise LibraryError(
                f"The Qdrant server at {self.location} does not answer: {error.source}. Check the address and that it "
                f"runs, or unset {URL_VARIABLE} to search without a server."
            ) from error
        except UnexpectedResponse as error:
            if error.status_code in (401, 403):
                raise LibraryError(
                    f"The Qdrant server at {self.location} refuses the key ({error.status_code}). "
                    f"Put the right one into {KEY_VARIABLE}."
                ) from error
            raise LibraryError(
                f"The case library on {self.location} cannot be {verb}: the server answers {error.status_code} "
                f"{error.reason_phrase}. If another process built it anew, restart this one."
            ) from error
        except ResourceExhaustedResponse as error:
            raise LibraryError(
                f"The Qdrant server at {self.location} is too busy ({error}). Try again later."
            ) from error
        except (OSError, ValueError, RuntimeError) as error:
            raise LibraryError(f"The case library on {self.location} cannot be {verb}: {error}.") from error

    def collection_for(self, name: str, cases: CaseVectors) -> str:
        """See Store. What an interrupted upload left is completed; what the new collection replaces is deleted."""
        collection = f"{name}--{cases.fingerprint}"
        with self.lock, self.plain_errors("built"):
            previous = self.current(name)
            if previous != collection or self.count(collection) != len(cases):
                self.fill(collection, cases)
                self.switch(name, previous, collection)
                if previous and previous != collection and not self.used(previous):
                    self.client.delete_collection(previous)
            self.sizes[collection] = len(cases)
        return collection

    def holds(self, name: str, cases: CaseVectors) -> bool:
        """Whether a library's name stands for a complete collection of just these cases. Raises LibraryError."""
        collection = f"{name}--{cases.fingerprint}"
        with self.plain_errors("asked"):
            return self.current(name) == collection and self.count(collection) == len(cases)

    def forget(self, name: str) -> None:
        """Delete every collection of a library's name, complete or not. Raises LibraryError."""
        with self.lock, self.plain_errors("deleted"):
            for collection in self.collections_of(name):
                self.client.delete_collection(collection)

    def collections_of(self, name: str) -> list[str]:
        """The collections of a library's name."""
        found = (collection.name for collection in self.client.get_collections().collections)
        return sorted(collection for collection in found if collection.startswith(f"{name}--"))

    def describe(self, name: str) -> dict[str, dict[str, Any]]:
        """What there is of a library's name: collection -> cases, how many are in the graph, and how it was made."""
        with self.plain_errors("asked"):
            current = self.current(name)
            return {
                collection: {"in use": collection == current, **facts_of(self.client.get_collection(collection))}
                for collection in self.collections_of(name)
            }

    def used(self, collection: str) -> bool:
        """Whether a library of this process searches that collection."""
        return any(library.collection == collection for library in self.libraries)

    def current(self, name: str) -> str | None:
        """The collection that a library's name stands for now."""
        aliases = self.client.get_aliases().aliases
        return next((alias.collection_name for alias in aliases if alias.alias_name == name), None)

    def count(self, collection: str) -> int:
        """How many cases a collection holds."""
        return self.client.count(collection, exact=True).count

    def fill(self, collection: str, cases: CaseVectors) -> None:
        """Create the collection where it is not there, and send the batches that it lacks, several at once."""
        vectors, groups, step = cases.unit, cases.groups.tolist(), self.settings.batch
        begun = self.client.collection_exists(collection)
        if not begun:
            self.create(collection, cases.dimension)

        def send(start: int) -> int:
            rows = list(range(start, min(start + step, len(vectors))))
            if begun and len(self.client.retrieve(collection, rows, with_payload=False)) == len(rows):
                return len(rows)
            points = models.Batch(
                ids=rows,  # type: ignore[arg-type]
                vectors=vectors[start : start + step].tolist(),
                payloads=[{"group": groups[row]} for row in rows],
            )
            self.patiently(lambda: self.client.upsert(collection, points, wait=True))
            return len(rows)

        done = 0
        with ThreadPoolExecutor(self.settings.parallel) as pool:
            try:
                for sent in pool.map(send, range(0, len(vectors), step)):
                    done += sent
                    if self.progress:
                        self.progress(done, len(vectors))
            finally:
                pool.shutdown(cancel_futures=True)
        if (count := self.count(collection)) != len(vectors):
            raise LibraryError(f"Qdrant at {self.location} holds {count} of {len(vectors)} cases. Try again.")

    def create(self, collection: str, dimension: int) -> None:
        """Create an empty collection with an index on the group, unless another process does so at this moment."""
        try:
            self.client.create_collection(collection, **self.settings.collection(dimension))
        except UnexpectedResponse as error:
            if error.status_code != 409:
                raise
        self.client.create_payload_index(collection, "group", models.PayloadSchemaType.INTEGER, wait=True)

    def patiently(self, work: Callable[[], object]) -> None:
        """Do it again a few times while the server is busy or out of reach."""
        for attempt in range(TRIES):
            try:
                work()
                return
            except (ResponseHandlingException, ResourceExhaustedResponse):
                if attempt == TRIES - 1:
                    raise
                time.sleep(PAUSE * 2**attempt)

    def switch(self, name: str, previous: str | None, built: str) -> None:
        """Let the library's name stand for the new collection, in one step."""
        if previous == built:
            return
        steps: list = []
        if previous:
            steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name)))
        create = models.CreateAlias(collection_name=built, alias_name=name)
        steps.append(models.CreateAliasOperation(create_alias=create))
        self.client.update_collection_aliases(steps)

    def query(self, collection: str, vector: np.ndarray, limit: int, exclusion: Exclusion) -> list[Hit]:
        """See Store: by a scan up to EXACT_UP_TO cases, above through the graph."""

        def ask(params: models.SearchParams) -> list[models.ScoredPoint]:
            answer = self.client.query_points(
                collection,
                query=vector.tolist(),
                limit=limit,
                with_payload=False,
                query_filter=without(exclusion),
                search_params=params,
            )
            return answer.points

        with self.plain_errors("searched"):
            found = ask(EXACT if self.sizes[collection] <= EXACT_UP_TO else through_graph(limit))
            if (
                len(found) < limit and self.sizes[collection] > EXACT_UP_TO
            ):  # the graph does not reach all that are left
                found = ask(EXACT)
        return [Hit(int(hit.id), hit.score) for hit in found]

    def drop(self, collection: str) -> None:
        """Nothing: it stays on the server for others."""

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


def facts_of(found: models.CollectionInfo) -> dict[str, Any]:
    """A collection's own account of itself, in a line."""
    config = found.config
    quantization = config.quantization_config
    return {
        "status": found.status.value,
        "cases": found.points_count,
        "in the graph": found.indexed_vectors_count,
        "shards": config.params.shard_number,
        "replicas": config.params.replication_factor,
        "quantization": "none" if quantization is None else next(iter(quantization.model_dump())),
        "m": config.hnsw_config.m,
        "ef_construct": config.hnsw_config.ef_construct,
    }


def through_graph(limit: int) -> models.SearchParams:
    """How a graph is searched for `limit` cases."""
    again = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
    return models.SearchParams(hnsw_ef=max(WIDTH, limit), quantization=again)


def without(exclusion: Exclusion) -> models.Filter | None:
    """The filter that leaves these cases out."""
    conditions: list = []
    if exclusion.group is not None:
        conditions.append(models.FieldCondition(key="group", match=models.MatchValue(value=exclusion.group)))
    if exclusion.rows_of_id:
        conditions.append(models.HasIdCondition(has_id=list(exclusion.rows_of_id)))
    return models.Filter(must_not=conditions) if conditions else None
