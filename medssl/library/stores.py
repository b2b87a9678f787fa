"""One Qdrant client a process for each place where libraries are kept, and collections that are whole or not there."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import itertools
import sqlite3
import threading
import uuid
import weakref
from collections.abc import Iterator

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from medssl.errors import LibraryError

MEMORY = ":memory:"
URL_VARIABLE, KEY_VARIABLE = "MEDSSL_QDRANT_URL", "MEDSSL_QDRANT_API_KEY"
# Unit vectors under Dot give the cosine. Qdrant's own Cosine does the same on a server; in local mode it normalises the
# whole stored matrix in place at every search, which takes twice the time and races between threads.
DISTANCE = models.Distance.DOT
UPLOAD_BATCH = 512
FOLDER_ERRORS = (OSError, sqlite3.Error, ValueError, RuntimeError)
SERVER_ERRORS = (ResponseHandlingException, UnexpectedResponse, ResourceExhaustedResponse)


class Store:
    """One Qdrant client, shared by all libraries of this process at the same location."""

    def __init__(self, location: str, api_key: str | None, timeout: int) -> None:
        self.location, self.key = location, (location, api_key)
        self.is_server = is_server(location)
        self.in_memory = location == MEMORY
        self.lock = threading.RLock()
        self.libraries: weakref.WeakSet = weakref.WeakSet()
        self.numbers = itertools.count()
        with self.plain_errors("opened"):
            if self.is_server:
                self.client = QdrantClient(url=location, api_key=api_key, timeout=timeout, check_compatibility=False)
                self.client.get_collections()
            elif self.in_memory:
                self.client = QdrantClient(MEMORY, force_disable_check_same_thread=True)
            else:
                # SQLite is only written under our lock, so its check for one thread may be off.
                self.client = QdrantClient(path=location, force_disable_check_same_thread=True)

    @contextlib.contextmanager
    def plain_errors(self, verb: str) -> Iterator[None]:
        """Turn what Qdrant, the network and the disk raise into a LibraryError that says what to do."""
        try:
            yield
        except ResponseHandlingException as error:
            raise LibraryError(
                f"The Qdrant server at {self.location} does not answer: {error.source}. Check the address and that it "
                f"runs, or unset {URL_VARIABLE} to search in memory."
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
        except FOLDER_ERRORS as error:
            if "already accessed by another instance" in str(error):
                raise LibraryError(
                    f"The library folder {self.location} is in use by another process. Stop that one, give this one "
                    f"another folder, or set {URL_VARIABLE} to a Qdrant server, which several may share."
                ) from error
            raise LibraryError(
                f"The case library in {self.location} cannot be {verb}: {error}. If it is a folder, check that it can "
                "be written to; deleting it loses nothing, as it is rebuilt from the bundle's cases."
            ) from error

    def collection_for(self, name: str, vectors: np.ndarray) -> str:
        """The name of a complete collection of these unit vectors `[N,D]`; built only where there is none."""
        with self.lock, self.plain_errors("built"):
            if self.in_memory:
                return self.upload(f"{name}--{next(self.numbers)}", vectors)
            prefix = f"{name}--{fingerprint(vectors)}--"
            current = self.current(name)
            if current and current.startswith(prefix) and self.count(current) == len(vectors):
                return current
            built = self.upload(prefix + uuid.uuid4().hex[:8], vectors)
            previous = self.current(name)
            if previous and previous != current and previous.startswith(prefix):  # another process was quicker
                self.client.delete_collection(built)
                return previous
            self.switch(name, previous, built)
            self.sweep(name, previous, built)
            return built

    def current(self, name: str) -> str | None:
        """The collection that a library's name stands for now."""
        aliases = self.client.get_aliases().aliases
        return next((alias.collection_name for alias in aliases if alias.alias_name == name), None)

    def count(self, collection: str) -> int:
        """How many cases a collection holds."""
        return self.client.count(collection, exact=True).count

    def upload(self, collection: str, vectors: np.ndarray) -> str:
        """Create a collection and fill it with vectors `[N,D]`, row index as id; nothing stays of a failed one."""
        size = models.VectorParams(size=vectors.shape[1], distance=DISTANCE)
        self.client.create_collection(collection, vectors_config=size)
        complete = False
        try:
            self.client.upload_collection(
                collection, vectors=vectors, ids=range(len(vectors)), batch_size=UPLOAD_BATCH, wait=True
            )
            if (count := self.count(collection)) != len(vectors):
                raise LibraryError(f"Qdrant at {self.location} took {count} of {len(vectors)} cases. Try again.")
            complete = True
        finally:
            if not complete:
                with contextlib.suppress(*FOLDER_ERRORS, *SERVER_ERRORS):
                    self.client.delete_collection(collection)
        return collection

    def switch(self, name: str, previous: str | None, built: str) -> None:
        """Let the library's name stand for the new collection, in one step."""
        steps: list = []
        if previous:
            steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name)))
        create = models.CreateAlias(collection_name=built, alias_name=name)
        steps.append(models.CreateAliasOperation(create_alias=create))
        self.client.update_collection_aliases(steps)

    def sweep(self, name: str, previous: str | None, built: str) -> None:
        """Delete what the new collection replaces, and in a folder what interrupted builds left behind."""
        used = {library.collection for library in self.libraries} | {built}
        stale = {previous} if previous else set()
        if not self.is_server:  # a folder is ours alone; on a server another process may be building one right now
            found = (collection.name for collection in self.client.get_collections().collections)
            stale |= {collection for collection in found if collection.startswith(f"{name}--")}
        for collection in stale - used:
            self.client.delete_collection(collection)

    def query(self, collection: str, vector: np.ndarray, limit: int) -> list[models.ScoredPoint]:
        """The rows (`id`) and scores of the `limit` nearest to a unit vector `[D]`, by a full scan."""
        exact = models.SearchParams(exact=True) if self.is_server else None
        with self.plain_errors("searched"):
            return self.client.query_points(
                collection, query=vector.tolist(), limit=limit, with_payload=False, search_params=exact
            ).points

    def release(self, library: object) -> None:
        """Forget a library; with the last one the client is closed, and a folder is free for another process."""
        with _STORES_LOCK:
            self.libraries.discard(library)
            if not len(self.libraries):
                _STORES.pop(self.key, None)
                self.client.close()


_STORES: weakref.WeakValueDictionary[tuple, Store] = weakref.WeakValueDictionary()
_STORES_LOCK = threading.Lock()


def shared_store(location: str, api_key: str | None, timeout: int, library: object) -> Store:
    """The process's one store at a location, opened if need be, with this library among its users."""
    with _STORES_LOCK:
        store = _STORES.get((location, api_key)) or Store(location, api_key, timeout)
        _STORES[store.key] = store
        store.libraries.add(library)
        return store


@atexit.register
def _close_all() -> None:
    """Close folders before the interpreter takes the modules away that closing needs."""
    for store in list(_STORES.values()):
        store.client.close()


def is_server(location: str) -> bool:
    """Whether a location is the address of a Qdrant server."""
    return location.startswith(("http://", "https://"))


def fingerprint(vectors: np.ndarray) -> str:
    """A short name for these vectors `[N,D]`, in this order."""
    digest = hashlib.sha256(f"1 {vectors.dtype} {vectors.shape}".encode())
    digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()[:20]
