"""Shards of a data set's embeddings: which pictures are whose, what they were embedded by, and their files."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from medssl.backbones import embeddings
from medssl.backbones.embedder import Embedder
from medssl.errors import DataError
from medssl.files import written_whole
from medssl.shapes import check_shape, read_json

RECORD = "record.json"
SCHEMA_VERSION = 1
META = b"medssl"
NUMBER = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class ShardNumber:
    """Shard `number` (from 1) of `of`. Raises DataError for one that there is not."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise DataError(f"There is no shard {self}. Allowed: i/n with i from 1 to n, such as 1/4 to 4/4.")

    @classmethod
    def parse(cls, text: str) -> ShardNumber:
        """The shard that a text such as "2/4" means. Raises DataError."""
        found = NUMBER.fullmatch(text)
        if not found:
            raise DataError(f"{text!r} is no shard. Allowed: i/n with i from 1 to n, such as 1/4 to 4/4.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"shard-{self.number}-of-{self.of}"


class StoredEmbedding(TypedDict):
    """What decided the embeddings of a shard; `version` is that of how they are computed."""

    id: str
    revision: str
    dimension: int
    pooling: str
    preprocess: dict
    precision: str
    version: int


class StoredRecord(TypedDict):
    """The content of a shard's record."""

    schema_version: int
    shard: int
    shards: int
    images: int
    part_images: int
    files: str
    embedding: StoredEmbedding


SHAPE = TypeAdapter(StoredRecord)


@dataclass(frozen=True)
class ShardRecord:
    """What a shard is of: its number, the data set (`images` pictures, `files` a hash of their names in order), and
    what decided the embeddings. Its parts are every `shards`-th stretch of `part_images` pictures.
    """

    shard: int
    shards: int
    images: int
    part_images: int
    files: str
    embedding: Mapping

    @classmethod
    def of(cls, shard: ShardNumber, names: Sequence[str], embedder: Embedder) -> ShardRecord:
        """The record of a shard of a data set with these file names."""
        decided = {
            **embedder.describe(),
            "precision": embedder.backbone.precision,
            "version": embeddings.EMBEDDING_VERSION,
        }
        return cls(shard.number, shard.of, len(names), embeddings.PART_IMAGES, digest_of_names(names), decided)

    @classmethod
    def read(cls, folder: Path) -> ShardRecord:
        """The record in a shard's folder. Raises DataError where there is none, or a damaged one."""
        file = f"The record {folder / RECORD}"
        values = read_json(folder / RECORD, file, DataError)
        check_shape(SHAPE, values, file, DataError)
        if values.pop("schema_version") != SCHEMA_VERSION:
            raise DataError(f"{file} has a schema that this medssl does not read. Update medssl, or embed again.")
        return cls(**values)

    def write(self, folder: Path) -> None:
        """Write the record into a shard's folder."""
        with written_whole(folder / RECORD) as beside:
            beside.write_text(json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2) + "\n", "utf-8")

    @property
    def number(self) -> ShardNumber:
        """Which shard it is."""
        return ShardNumber(self.shard, self.shards)

    @property
    def parts(self) -> list[range]:
        """The rows of the data set that are this shard's, a part each."""
        starts = range((self.shard - 1) * self.part_images, self.images, self.shards * self.part_images)
        return [range(start, min(start + self.part_images, self.images)) for start in starts]

    @property
    def facts(self) -> dict:
        """What all shards of one run have in common. The place of a backbone's folder is none of it, its hash is."""
        plain = {key: value for key, value in asdict(self).items() if key not in ("shard", "embedding")}
        local = str(self.embedding["revision"]).startswith("sha256:")
        decided = {key: value for key, value in self.embedding.items() if not (local and key == "id")}
        return {**plain, **decided}

    @property
    def fingerprint(self) -> str:
        """A hash of those facts."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:32]


def digest_of_names(names: Sequence[str]) -> str:
    """A hash of file names in their order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{len(name)}:{name}".encode())
    return digest.hexdigest()[:32]


def differences(one: Mapping, other: Mapping) -> str:
    """The facts in which two records differ, with both values, as a text; "" where they are equal."""
    return "; ".join(f"{key} {one[key]!r} and {other[key]!r}" for key in one if one[key] != other.get(key))


@dataclass(frozen=True)
class ShardPart:
    """The pictures of some rows of a data set (from `start` up to `stop`) that could be read, and their embeddings.

    `rows [n]`, their file `names`, picture `ids` and `vectors [n, D]` float32; `unreadable` are the other rows, each
    with its file name and why.
    """

    start: int
    stop: int
    rows: np.ndarray
    names: list[str]
    ids: list[str]
    vectors: np.ndarray
    unreadable: dict[int, tuple[str, str]]

    def write(self, path: Path, fingerprint: str) -> None:
        """Write the part as a parquet file, whole or not at all."""
        width = self.vectors.shape[1]
        flat = pa.array(np.ascontiguousarray(self.vectors, np.float32).reshape(-1))
        facts = {
            "fingerprint": fingerprint,
            "start": self.start,
            "stop": self.stop,
            "unreadable": {str(row): said for row, said in self.unreadable.items()},
        }
        table = pa.table(
            {
                "row": pa.array(self.rows, pa.int64()),
                "file_name": pa.array(self.names, pa.string()),
                "id": pa.array(self.ids, pa.string()),
                "embedding": pa.FixedSizeListArray.from_arrays(flat, width),
            }
        ).replace_schema_metadata({META: json.dumps(facts).encode()})
        stream = io.BytesIO()
        pq.write_table(table, stream, use_dictionary=False, write_page_checksum=True)
        with written_whole(path) as beside:
            beside.write_bytes(stream.getvalue())

    @classmethod
    def read(cls, path: Path, fingerprint: str) -> ShardPart:
        """The part in a file. Raises DataError where it is damaged, or of other shards than the fingerprint's."""
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                table = file.read()
            facts = json.loads(table.schema.metadata[META])
            start, stop = int(facts["start"]), int(facts["stop"])
            column = table["embedding"].combine_chunks()
            vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)
            unreadable = {int(row): (str(name), str(why)) for row, (name, why) in facts["unreadable"].items()}
            rows, names, ids = (table[name].to_pylist() for name in ("row", "file_name", "id"))
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged ({type(error).__name__}). Embed its shard again.") from error
        if facts.get("fingerprint") != fingerprint:
            raise DataError(f"{path} belongs to other shards than those it lies among. Take it out of there.")
        return cls(start, stop, np.array(rows, np.int64), names, ids, vectors.astype(np.float32), unreadable)


def part_path(folder: Path, part: range) -> Path:
    """The file of a part in its shard's folder."""
    return folder / f"rows-{part.start:08d}.parquet"
