"""Embed one shard of a data set into parquet files: each part is written when it is done, and a killed run goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from medssl.backbones.embedder import Embedder
from medssl.backbones.embeddings import embed_images
from medssl.backbones.frames import HeldFrames, read_ahead
from medssl.backbones.shards import RECORD, ShardNumber, ShardPart, ShardRecord, differences, part_path
from medssl.data.load import read_record
from medssl.data.stream import StreamedData
from medssl.errors import DataError, ImageError
from medssl.images.preprocess import Preprocess
from medssl.images.read import image_id
from medssl.runtime import processors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddedShard:
    """What came of a shard: its `folder`, how many pictures it holds (`kept` of them from an earlier run), and which
    files could not be read (name -> why).
    """

    folder: Path
    images: int
    kept: int
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Decoded:
    """A picture in the model's frame, uint8 `[h, w, 3]`, and its id; a black one without where `reason` says why."""

    frame: np.ndarray
    id: str = ""
    reason: str = ""


def decoded_parts(
    dataset: Dataset | StreamedData, preprocess: Preprocess, parts: Sequence[range], overlap: bool
) -> Iterator[list[Decoded]]:
    """The pictures of each part, read by threads; with `overlap` those of the next part while the caller works."""
    black = np.zeros((*preprocess.size, 3), np.uint8)

    def read(row: int) -> Decoded:
        try:
            image = read_record(dataset[row])
        except ImageError as error:
            return Decoded(black, reason=str(error))
        return Decoded(preprocess.resize(image), image_id(image))

    return read_ahead(read, parts, overlap, processors())


def embedded_part(
    part: range, pictures: Sequence[Decoded], names: Sequence[str], embedder: Embedder, bar: tqdm
) -> ShardPart:
    """The embeddings of a part's pictures.

    What cannot be read goes through as a black picture and is left out after, so that batches are cut as a build cuts
    them, and every number is the same to the last bit.
    """
    frames = HeldFrames(np.stack([picture.frame for picture in pictures]))
    vectors = embed_images(frames, embedder.backbone, embedder.preprocess, embedder.pooling, bar)
    good = [place for place, picture in enumerate(pictures) if not picture.reason]
    return ShardPart(
        part.start,
        part.stop,
        part.start + np.array(good, np.int64),
        [names[part.start + place] for place in good],
        [pictures[place].id for place in good],
        vectors[good],
        {
            part.start + place: (names[part.start + place], picture.reason)
            for place, picture in enumerate(pictures)
            if picture.reason
        },
    )


def opened_folder(record: ShardRecord, out: Path) -> Path:
    """The shard's folder with its record. Raises DataError where it holds what something else embedded."""
    folder = out / record.number.folder
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RECORD).exists():
        differing = differences(ShardRecord.read(folder).facts, record.facts)
        if differing:
            raise DataError(
                f"{folder} holds a shard of something else (there and asked for: {differing}). Choose another folder, "
                "or delete it."
            )
    else:
        record.write(folder)
    return folder


def kept_part(path: Path, fingerprint: str) -> ShardPart | None:
    """The part that an earlier run wrote; None where there is none, or, with a warning, where it is damaged."""
    if not path.exists():
        return None
    try:
        return ShardPart.read(path, fingerprint)
    except DataError as error:
        log.warning("%s It is embedded again.", error)
        return None


def embed_shard(
    dataset: Dataset | StreamedData, embedder: Embedder, shard: ShardNumber, out: str | Path, progress: bool = True
) -> EmbeddedShard:
    """Embed the shard's pictures of a data set into a folder of its own in `out`.

    Parts of 512 pictures are written as they are done, so that memory does not grow and a kill costs at most one; the
    same call goes on. Shards know nothing of each other: they may run anywhere. Files that cannot be read are left out
    and named. Raises DataError where the folder holds another data set's, backbone's or reading's embeddings.
    """
    names = [str(name) for name in dataset["file_name"][:]]
    record = ShardRecord.of(shard, names, embedder)
    folder = opened_folder(record, Path(out))
    missing, kept, unreadable = [], 0, {}
    for part in record.parts:
        found = kept_part(part_path(folder, part), record.fingerprint)
        if found is None:
            missing.append(part)
        else:
            kept += len(part)
            unreadable |= found.unreadable
    images = sum(map(len, record.parts))
    overlap = embedder.backbone.device.type != "cpu"  # on a CPU every matrix product waits for the core that decodes
    with tqdm(total=images, initial=kept, desc=f"shard {shard}", unit="img", disable=not progress) as bar:
        decoded = decoded_parts(dataset, embedder.preprocess, missing, overlap)
        for part, pictures in zip(missing, decoded, strict=True):
            done = embedded_part(part, pictures, names, embedder, bar)
            done.write(part_path(folder, part), record.fingerprint)
            unreadable |= done.unreadable
    return EmbeddedShard(folder, images, kept, dict(unreadable[row] for row in sorted(unreadable)))
