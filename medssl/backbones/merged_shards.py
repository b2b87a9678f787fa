"""The embeddings of a data set out of its shards: all there, each picture once, of what was asked for, or refused."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl.backbones.embedder import Embedder
from medssl.backbones.embeddings import EMBEDDING_VERSION
from medssl.backbones.reading import Reading
from medssl.backbones.shards import RECORD, ShardPart, ShardRecord, differences, digest_of_names, part_path
from medssl.errors import DataError

NAMED = 5  # that many of what is wrong are named
log = logging.getLogger(__name__)


def listed(items: Sequence[object]) -> str:
    """The first of several as a text, with how many there are more."""
    more = len(items) - NAMED
    return ", ".join(map(str, items[:NAMED])) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class ShardFolders:
    """All shards of one run: the folder of each by its number, and the `record` of the first."""

    place: Path
    folders: dict[int, Path]
    record: ShardRecord

    @classmethod
    def open(cls, place: str | Path) -> ShardFolders:
        """The shards in a folder. Raises DataError where one is missing, twice there, or of another run."""
        place = Path(place)
        found = sorted(path.parent for path in place.glob(f"*/{RECORD}"))
        if not found:
            raise DataError(
                f"{place} holds no embedded shards. Make them: medssl embed --data DATA --task NAME --backbone NAME "
                f"--shard 1/1 --out {place}"
            )
        records = [(folder, ShardRecord.read(folder)) for folder in found]
        first_folder, first = records[0]
        folders: dict[int, Path] = {}
        for folder, record in records:
            differing = differences(first.facts, record.facts)
            if differing:
                raise DataError(
                    f"{first_folder} and {folder} are not of one run: {differing}. Keep the shards of one in {place}."
                )
            twice = folders.setdefault(record.shard, folder)
            if twice != folder:
                raise DataError(f"Shard {record.number} lies there twice: {twice} and {folder}. Keep one of them.")
        missing = [f"{number}/{first.shards}" for number in range(1, first.shards + 1) if number not in folders]
        if missing:
            raise DataError(
                f"{place} lacks {len(missing)} of {first.shards} shards: {listed(missing)}. Run medssl embed --shard "
                f"{missing[0]} ... or copy its folder there."
            )
        return cls(place, folders, first)

    def check_embedder(self, embedder: Embedder) -> None:
        """Raises DataError, naming both values, unless the shards were made by that backbone and preprocessing.

        The precision may be another: it is that of the machines that embedded, and the log says so.
        """
        made = self.record.embedding
        wanted = {**embedder.describe(), "version": EMBEDDING_VERSION}
        names = ["revision", "dimension", "preprocess", "version"]
        names += [] if str(made["revision"]).startswith("sha256:") else ["id"]
        differing = differences({name: made[name] for name in names}, wanted)
        if differing:
            raise DataError(
                f"The shards in {self.place} were embedded by something else than this build asks for (there and "
                f"here: {differing}). Build with what they were made by, or embed again."
            )
        if made["precision"] != embedder.backbone.precision:
            log.warning(
                "The shards in %s were embedded in %s; this machine embeds in %s. They are taken as they are.",
                self.place,
                made["precision"],
                embedder.backbone.precision,
            )

    def parts(self) -> Iterator[ShardPart]:
        """Every part of every shard. Raises DataError for one that is missing, damaged, or where it should not be."""
        for number, folder in sorted(self.folders.items()):
            record = ShardRecord.read(folder)
            paths = [part_path(folder, part) for part in record.parts]
            missing = [path.name for path in paths if not path.exists()]
            if missing:
                raise DataError(
                    f"Shard {record.number} is not complete: {len(missing)} of its {len(paths)} files are missing "
                    f"({listed(missing)}). Run medssl embed --shard {record.number} again; it goes on where it was."
                )
            odd = sorted(set(folder.glob("rows-*.parquet")) - set(paths))
            if odd:
                raise DataError(
                    f"{folder} holds pictures that are not of shard {number}: {listed([path.name for path in odd])}. "
                    "They would count twice. Take them out of there."
                )
            yield from (ShardPart.read(path, record.fingerprint) for path in paths)


def check_names(shards: ShardFolders, names: Sequence[str]) -> None:
    """Raises DataError, naming pictures, unless the shards are of a data set with these file names in this order."""
    record = shards.record
    if (record.images, record.files) == (len(names), digest_of_names(names)):
        return
    held = set()
    for part in shards.parts():
        held |= {*part.names, *(name for name, _ in part.unreadable.values())}
    missing = [name for name in names if name not in held]
    surplus = sorted(held - set(names))
    said = [f"the data's {listed(missing)} in no shard"] if missing else []
    said += [f"the shards' {listed(surplus)} not in the data"] if surplus else []
    raise DataError(
        f"The shards in {shards.place} are of other data: they are of {record.images} pictures, the data has "
        f"{len(names)} ({'; '.join(said) or 'the same ones, in another order'}). Build from the data they were made "
        "of, or embed again."
    )


def check_part(part: ShardPart, names: Sequence[str], ids: Sequence[str]) -> None:
    """Raises DataError, naming pictures, unless a part holds each of its rows once, with the data's own pictures."""
    rows = part.rows.tolist()
    counted = Counter([*rows, *part.unreadable])
    twice = [names[row] for row, count in sorted(counted.items()) if count > 1 and 0 <= row < len(names)]
    if twice:
        raise DataError(f"The shards hold {listed(twice)} twice. Embed their shard again into an empty folder.")
    missing = [names[row] for row in range(part.start, part.stop) if row not in counted]
    if missing or len(counted) != part.stop - part.start:
        raise DataError(
            f"The rows {part.start} to {part.stop - 1} of the shards lack {listed(missing) or 'none'}, or hold others. "
            "Embed their shard again into an empty folder."
        )
    changed = [
        names[row]
        for row, name, own in zip(rows, part.names, part.ids, strict=True)
        if (name, own) != (names[row], ids[row])
    ]
    changed += [names[row] for row in part.unreadable if ids[row]]
    if changed:
        raise DataError(
            f"{listed(changed)} changed since the shards were embedded: the picture in the data is another one. Embed "
            "again into an empty folder."
        )


def merged_vectors(place: str | Path, names: Sequence[str], ids: Sequence[str], embedder: Embedder) -> np.ndarray:
    """The embeddings `[N, D]` float32 of a data set, out of the shards in a folder instead of computed anew.

    `names` and `ids` are the data set's file names and pictures' ids, "" where a file cannot be read, whose row is then
    no number. Shards of a wider reading give the part that is asked for. Raises DataError where shards, pictures or
    parts are missing, doubled, damaged or others, BackboneError where the shards' reading lacks a part.
    """
    shards = ShardFolders.open(place)
    shards.check_embedder(embedder)
    made = Reading.parse(shards.record.embedding["pooling"])
    columns = Reading.parse(embedder.pooling).columns(made, embedder.backbone.dimension)
    check_names(shards, names)
    vectors = np.full((len(names), len(columns)), np.nan, np.float32)
    for part in shards.parts():
        check_part(part, names, ids)
        vectors[part.rows] = part.vectors[:, columns]
    return vectors
