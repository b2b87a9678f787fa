"""Libraries in memory: Qdrant's local mode, which scans all vectors with numpy."""

from __future__ import annotations

import itertools

import numpy as np
from qdrant_client import QdrantClient, models

from medssl.library.store import Hit, Store
from medssl.library.vectors import CaseVectors, Exclusion

MEMORY = ":memory:"
# Unit vectors under Dot give the cosine. Local mode's own Cosine normalises the whole stored matrix in place at every
# search, which takes twice the time and races between threads.
DISTANCE = models.Distance.DOT
UPLOAD_BATCH = 512


class MemoryStore(Store):
    """The libraries of this process that live and go with it."""

    in_memory = True

    def __init__(self) -> None:
        super().__init__(MEMORY)
        self.client = QdrantClient(MEMORY, force_disable_check_same_thread=True)
        self.numbers = itertools.count()

    def collection_for(self, name: str, cases: CaseVectors) -> str:
        """A new collection of these cases. Raises LibraryError."""
        vectors = cases.unit
        with self.lock:
            collection = f"{name}--{next(self.numbers)}"
            self.client.create_collection(
                collection, vectors_config=models.VectorParams(size=cases.dimension, distance=DISTANCE)
            )
            complete = False
            try:
                self.client.upload_collection(
                    collection, vectors=vectors, ids=range(len(vectors)), batch_size=UPLOAD_BATCH
                )
                complete = True
            finally:
                if not complete:
                    self.client.delete_collection(collection)
        return collection

    def query(self, collection: str, vector: np.ndarray, limit: int, exclusion: Exclusion) -> list[Hit]:
        """See Store. A filter costs local mode about 10 us a stored case, so that more are asked for instead."""
        found = self.client.query_points(
            collection, query=vector.tolist(), limit=limit + len(exclusion.rows), with_payload=False
        ).points
        return [Hit(int(hit.id), hit.score) for hit in found if hit.id not in exclusion.rows][:limit]

    def drop(self, collection: str) -> None:
        """Free the collection's memory."""
        self.client.delete_collection(collection)

    def close(self) -> None:
        """Close the client."""
        self.client.close()
