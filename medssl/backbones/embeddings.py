"""A data set -> the same data set with an `embedding` column: cached, resumable."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, List, Value
from tqdm.auto import tqdm

from medssl.backbones.backbone import Backbone
from medssl.backbones.frames import DecodedFrames, Frames, PartlyBlackFrames, SelectedFrames, pixel_batches
from medssl.files import written_whole
from medssl.images.preprocess import Preprocess
from medssl.runtime import default_cache

PART_IMAGES = 512  # a part is written whole, so a kill costs at most this many images
EMBEDDING_VERSION = 2
DIGEST_BYTES = 32
log = logging.getLogger(__name__)


def record_key(record: dict) -> str:
    """What identifies one image file: the hash of its bytes, wherever it lies and whenever it was written."""
    image = record["image"]
    data = image["bytes"]
    if data is None and image.get("path"):
        try:
            data = Path(image["path"]).read_bytes()
        except OSError:
            data = None  # reading it as an image says what is wrong
    return hashlib.sha256(data or b"").hexdigest()


def fingerprint(
    dataset: Dataset, backbone: Backbone, preprocess: Preprocess, pooling: str, black: Sequence[int] = ()
) -> str:
    """A hash of (data, backbone, revision, precision, pooling, preprocessing): equal exactly when the result is.

    `black` are the rows whose files cannot be read now and may be later, by another version or package.
    """
    digest = hashlib.sha256()
    identity = [EMBEDDING_VERSION, backbone.id, backbone.revision, backbone.precision, pooling, preprocess.to_dict()]
    if black:
        identity.append([int(row) for row in black])
    digest.update(json.dumps(identity, sort_keys=True).encode())
    for record in dataset.select_columns(["image"]):
        digest.update(record_key(record).encode())
    return digest.hexdigest()[:32]


def embed_images(
    frames: Frames, backbone: Backbone, preprocess: Preprocess, pooling: str, bar: tqdm | None = None
) -> np.ndarray:
    """Embeddings `[N, D]` float32 of frames, without any cache."""
    parts = []
    overlap = backbone.device.type != "cpu"
    for pixels in pixel_batches(frames, preprocess, backbone.batch_size(preprocess), overlap):
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
    frames: Frames | None = None,
) -> Dataset:
    """The data set with a column `embedding` (fixed-size float32 list); see `embedding_vectors`. Raises ImageError."""
    preprocess = preprocess or backbone.preprocess
    pooling = pooling or backbone.default_pooling
    return with_embeddings(
        dataset, embedding_vectors(dataset, backbone, preprocess, pooling, cache_dir, progress, frames)
    )


def embedding_vectors(
    dataset: Dataset,
    backbone: Backbone,
    preprocess: Preprocess,
    pooling: str,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    frames: Frames | None = None,
) -> np.ndarray:
    """Embeddings `[N, D]` float32 of a data set's images.

    `frames` are its images in the model's frame where they are at hand; else the files are decoded. Parts of 512
    images are cached under a fingerprint of everything that decides the result; a killed run goes on where it was.
    Raises ImageError for a file that cannot be read: run the audit and leave such files out first.
    """
    dimension = backbone.embedding_dim(pooling)
    black = frames.rows if isinstance(frames, PartlyBlackFrames) else ()
    name = fingerprint(dataset, backbone, preprocess, pooling, black)
    folder = Path(cache_dir or default_cache()) / "embeddings" / name
    folder.mkdir(parents=True, exist_ok=True)
    vectors = np.empty((len(dataset), dimension), np.float32)
    frames = frames or DecodedFrames(dataset, preprocess)
    with tqdm(total=len(dataset), desc="embed", unit="img", disable=not progress) as bar:
        for start in range(0, len(dataset), PART_IMAGES):
            stop = min(start + PART_IMAGES, len(dataset))
            part = folder / f"{start:08d}.part"
            kept = read_part(part, (stop - start, dimension))
            if kept is not None:
                vectors[start:stop] = kept
                bar.update(stop - start)
                continue
            vectors[start:stop] = embed_images(
                SelectedFrames(frames, np.arange(start, stop)), backbone, preprocess, pooling, bar
            )
            write_part(part, vectors[start:stop])
    return vectors


def write_part(path: Path, vectors: np.ndarray) -> None:
    """Keep vectors `[n, D]` with their hash before them."""
    stream = io.BytesIO()
    np.save(stream, vectors)
    with written_whole(path) as beside:
        beside.write_bytes(hashlib.sha256(stream.getvalue()).digest() + stream.getvalue())


def read_part(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Kept vectors of that shape; None where there are none, or, with a warning, where they are damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("The cached embeddings in %s cannot be read (%s) and are computed again.", path, error.strerror)
        return None
    if hashlib.sha256(data[DIGEST_BYTES:]).digest() == data[:DIGEST_BYTES]:
        vectors = np.load(io.BytesIO(data[DIGEST_BYTES:]), allow_pickle=False)
        if vectors.shape == shape and vectors.dtype == np.float32:
            return vectors
    log.warning("The cached embeddings in %s are damaged and are computed again.", path)
    return None


def with_embeddings(dataset: Dataset, vectors: np.ndarray) -> Dataset:
    """The data set with `vectors [N, D]` as its `embedding` column."""
    if "embedding" in dataset.column_names:
        dataset = dataset.remove_columns("embedding")
    feature = List(Value("float32"), length=vectors.shape[1])
    return dataset.add_column("embedding", list(vectors.astype(np.float32)), feature=feature)
