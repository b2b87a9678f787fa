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
from datasets import Dataset, List, Value
from tqdm.auto import tqdm

from medssl.backbones.backbone import Backbone
from medssl.data.load import read_record
from medssl.images.preprocess import Preprocess

PART_IMAGES = 512  # a part is written whole, so a kill costs at most this many images
EMBEDDING_VERSION = 1
CHUNK_BATCHES = 8


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


def pixel_batches(
    dataset: Dataset, preprocess: Preprocess, batch_size: int, workers: int, overlap: bool
) -> Iterator[np.ndarray]:
    """The images as normalised pixels, float32 `[b, 3, h, w]`, decoded by threads a chunk of batches at a time.

    With `overlap` the next chunk is decoded while the caller works. On a CPU that costs more than it brings: every
    matrix product waits for the core that decodes.
    """

    def read(index: int) -> np.ndarray:
        return preprocess.normalize(preprocess.resize(read_record(dataset[index])))

    size = batch_size * CHUNK_BATCHES
    chunks = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
    with ThreadPoolExecutor(workers) as pool:
        waiting: list = []
        try:
            for number, chunk in enumerate(chunks):
                waiting = waiting or [pool.submit(read, index) for index in chunk]
                pixels = [future.result() for future in waiting]
                following = chunks[number + 1] if overlap and number + 1 < len(chunks) else ()
                waiting = [pool.submit(read, index) for index in following]
                for start in range(0, len(pixels), batch_size):
                    yield np.stack(pixels[start : start + batch_size])
        finally:
            for future in waiting:
                future.cancel()


def embed_images(
    dataset: Dataset, backbone: Backbone, preprocess: Preprocess, pooling: str, bar: tqdm | None = None
) -> np.ndarray:
    """Embeddings `[N, D]` float32 of a data set's images, without any cache."""
    parts = []
    overlap = backbone.device.type != "cpu"
    workers = min(8, os.cpu_count() or 1)
    for pixels in pixel_batches(dataset, preprocess, backbone.batch_size(preprocess), workers, overlap):
        parts.append(backbone.embed(torch.from_numpy(pixels), pooling))
        if bar is not None:
            bar.update(len(pixels))
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
