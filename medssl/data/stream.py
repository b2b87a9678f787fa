"""A Hub data set read as it is needed: its columns at once, its pictures by row groups, nothing kept on disk."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from threading import Lock

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetInfo, Features, Image, concatenate_datasets, load_dataset_builder
from datasets.table import InMemoryTable
from huggingface_hub import HfFileSystem

from medssl.data.hub import failures_said, joined_parts
from medssl.data.labels import with_labels
from medssl.errors import DataError

HELD = 2  # row groups in memory: the one that is read, and the one before, which threads may still ask for


@dataclass(frozen=True)
class RowGroup:
    """The `number`-th row group of a parquet file on the Hub, and how many `rows` it has."""

    file: str
    number: int
    rows: int


class StreamedData:
    """A data set whose pictures stay on the Hub: `rows` are all of its columns without them, `groups` where they lie.

    It is asked as a Dataset is: a column by its name, a row by its number. Threads may ask at once. Raises DataError
    where the Hub no longer answers.
    """

    def __init__(self, rows: Dataset, groups: Sequence[RowGroup], files: HfFileSystem) -> None:
        self.rows, self.groups, self.files = rows, list(groups), files
        self.starts = list(accumulate((group.rows for group in groups), initial=0))
        self.held: OrderedDict[int, list[Mapping]] = OrderedDict()
        self.lock = Lock()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> dict | Sequence:
        if isinstance(key, str):
            return self.rows[key]
        place = bisect_right(self.starts, key) - 1
        with self.lock:
            return {**self.rows[key], "image": self.images_of(place)[key - self.starts[place]]}

    def images_of(self, place: int) -> list[Mapping]:
        """The pictures of a row group, undecoded, from memory where they are the latest read."""
        if place not in self.held:
            group = self.groups[place]
            try:
                with self.files.open(group.file) as stream:
                    table = pq.ParquetFile(stream, pre_buffer=True).read_row_group(group.number, columns=["image"])
            except (OSError, RuntimeError, pa.ArrowException, httpx.HTTPError) as error:
                raise DataError(
                    f"{group.file} could not be read on ({type(error).__name__}). What is embedded is kept: run the "
                    "same command again."
                ) from error
            self.held[place] = table["image"].to_pylist()
            if len(self.held) > HELD:
                self.held.popitem(last=False)
        return self.held[place]


def stream_data(source: str, labels: Sequence[str] | None = None, revision: str | None = None) -> StreamedData:
    """A Hub data set of parquet files as a stream, its rows and columns as `load_data` would give them.

    Raises DataError where there is none, it holds other files than parquet, lacks columns, or its labels are others.
    """
    if Path(source).exists():
        raise DataError(f"{source!r} is on this machine. --stream is for data sets of the Hub: leave it out.")
    parts: dict[str, Dataset] = {}
    groups: list[RowGroup] = []
    with failures_said(source):
        builder = load_dataset_builder(source, revision=revision)
        if builder.name != "parquet":
            raise DataError(
                f"{source} holds no parquet files but {builder.name} data, which cannot be read as a stream. Read its "
                "parquet branch (--data-revision refs/convert/parquet, which the Hub makes of public data sets), or "
                "leave --stream out."
            )
        files = HfFileSystem()
        for name, places in builder.config.data_files.items():
            read = [columns_of(place, files, builder.info.features) for place in places]
            parts[str(name)] = concatenate_datasets([rows for rows, _ in read])
            groups += [group for _, found in read for group in found]
    return StreamedData(with_labels(joined_parts(parts, source), labels, source), groups, files)


def columns_of(file: str, files: HfFileSystem, declared: Features | None) -> tuple[Dataset, list[RowGroup]]:
    """The columns of a parquet file but the pictures, whose column is empty, and its row groups."""
    with files.open(file) as stream:
        parquet = pq.ParquetFile(stream)
        features = declared or Features.from_arrow_schema(parquet.schema_arrow)
        table = parquet.read(columns=[name for name in features if name != "image"])
        sizes = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
    if isinstance(features.get("image"), Image):
        table = table.append_column("image", pa.nulls(sum(sizes), features["image"].pa_type))
    kept = Features({name: features[name] for name in table.column_names})
    rows = Dataset(InMemoryTable(table.cast(kept.arrow_schema)), DatasetInfo(features=kept))
    return rows, [RowGroup(file, number, size) for number, size in enumerate(sizes)]
