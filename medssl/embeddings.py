"""A data set -> the same data set with an `embedding` column: decoded in parallel, cached, resumable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from tqdm.auto import tqdm

from medssl.backbones import Backbone
from medssl.data import read_record
from medssl.preprocess import Preprocess

PART_IMAGES = 512  # a part is written whole, so a kill costs at most this many images
EMBEDDING_VERSION = 1


def default_cache() -> Path:
    """MEDSSL_CACHE, or medssl's folder in the user's cache."""
    return Path(os.environ.get("MEDSSL_CACHE") or Path.home() / ".cache" / "medssl")


def record_key(record: dict) -> str:
    """What identifies one image file: its bytes' hash, or its path with size and time of change."""
    image = record["image"]
    if image.get("path") and os.path.exists(image["path"]):
        facts = os.stat(image["path"])
        return f"{os.path.abspath(image['path'])}:{facts.st_size}:{facts.st_mtime_ns}"
    return hashlib.sha256(image["bytes"] or b"").hexdigest()


def fingerprint(dataset: Dataset, backbone: Backbone, preprocess: Preprocess, pooling: str) -> str:
    """A hash of (data, backbone, revision, precision, pooling, preprocessing): equal exactly when the result is."""
    digest = hashlib.sha256()
    identity = [EMBEDDING_VERSION, backbone.id, backbone.revision, backbone.precision, pooling, preprocess.to_dict()]
    digest.update(json.dumps(identity, sort_keys=True).encode())
    for record in dataset.select_columns(["image"]):
        digest.update(record_key(record).encode())
    return digest.hexdigest()[:32]


def frames(dataset: Dataset, preprocess: Preprocess, batch_size: int, workers: int) -> Iterator[np.ndarray]:
    """The images in the model frame, uint8 `[b, h, w, 3]`, decoded by threads a few batches ahead."""

    def read(index: int) -> np.ndarray:
        return preprocess.resize(read_record(dataset[index]))

    with ThreadPoolExecutor(workers) as pool:
        ahead = batch_size * 3
        waiting = [pool.submit(read, index) for index in range(min(ahead, len(dataset)))]
        submitted = len(waiting)
        batch: list[np.ndarray] = []
        try:
            while waiting:
                batch.append(waiting.pop(0).result())
                if submitted < len(dataset):
                    waiting.append(pool.submit(read, submitted))
                    submitted += 1
                if len(batch) == batch_size:
                    yield np.stack(batch)
                    batch = []
        finally:
            for future in waiting:
                future.cancel()
    if batch:
        yield np.stack(batch)


def embed_images(
    dataset: Dataset, backbone: Backbone, preprocess: Preprocess, pooling: str, bar: tqdm | None = None
) -> np.ndarray:
    """Embeddings `[N, D]` float32 of a data set's images, without any cache."""
    parts = []
    # One decoding thread is enough beside a busy CPU; more would take cores from the matrix products.
    workers = 1 if backbone.device.type == "cpu" else min(8, os.cpu_count() or 1)
    for batch in frames(dataset, preprocess, backbone.batch_size(preprocess), workers):
        parts.append(backbone.embed(torch.from_numpy(preprocess.normalize(batch)), pooling))
        if bar is not None:
            bar.update(len(batch))
    return np.concatenate(parts)


def embed(
    dataset: Dataset,
    backbone: Backbone,
    preprocess: Preprocess | None = None,
    pooling: str | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Dataset:
    """The data set with a column `embedding` (fixed-size float32 list).

    Parts of 512 images are cached under a fingerprint of everything that decides the result; a killed run goes on
    where it was. Raises ImageError for a file that cannot be read: run the audit and leave such files out first.
    """
    preprocess = preprocess or backbone.preprocess
    pooling = pooling or backbone.default_pooling
    dimension = backbone.embedding_dim(pooling)
    folder = Path(cache_dir or default_cache()) / "embeddings" / fingerprint(dataset, backbone, preprocess, pooling)
    folder.mkdir(parents=True, exist_ok=True)
    vectors = np.empty((len(dataset), dimension), np.float32)
    with tqdm(total=len(dataset), desc="embed", unit="img", disable=not progress) as bar:
        for start in range(0, len(dataset), PART_IMAGES):
            stop = min(start + PART_IMAGES, len(dataset))
            part = folder / f"{start:08d}.npy"
            if part.exists():
                vectors[start:stop] = np.load(part, allow_pickle=False)
                bar.update(stop - start)
                continue
            vectors[start:stop] = embed_images(dataset.select(range(start, stop)), backbone, preprocess, pooling, bar)
            beside = part.with_suffix(f".{os.getpid()}.tmp")
            with beside.open("wb") as stream:
                np.save(stream, vectors[start:stop])
            beside.replace(part)
    return with_embeddings(dataset, vectors)


def with_embeddings(dataset: Dataset, vectors: np.ndarray) -> Dataset:
    """The data set with `vectors [N, D]` as its `embedding` column."""
    if "embedding" in dataset.column_names:
        dataset = dataset.remove_columns("embedding")
    feature = List(Value("float32"), length=vectors.shape[1])
    return dataset.add_column("embedding", list(vectors.astype(np.float32)), feature=feature)


def embedding_features(dimension: int) -> Features:
    """The column type of an embedding of that width."""
    return Features({"embedding": List(Value("float32"), length=dimension)})
