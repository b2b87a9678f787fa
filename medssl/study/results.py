"""The rows of a study: one measurement a row, kept as one parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medssl.files import written_whole
from medssl.study.runs import BY_GROUP

# The protocol of a row that says how much higher the split by image came out.
LEAKAGE_GAP = "images minus groups"


@dataclass(frozen=True)
class Row:
    """One figure on test with its 95 % interval over groups; with a `reference` it is `backbone` minus `reference`.

    `protocol` is how train and test were parted, `share` the share of the training groups, `draws` how many random
    draws the value is the mean of: their standard deviation, lowest and highest are beside it, and what validation
    chose in each is `setting`. `train_images` and `train_groups` are means over draws. `p` is the bootstrap's p-value
    of a difference, `p_holm` adjusted for the `comparisons` of the same metric at the same share.
    """

    task: str
    backbone: str
    head: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    groups: int
    seed: int
    setting: str = ""
    reference: str | None = None
    kind: str | None = None
    protocol: str = BY_GROUP
    share: float = 1.0
    draws: int = 1
    draw_sd: float | None = None
    draw_low: float | None = None
    draw_high: float | None = None
    train_images: float | None = None
    train_groups: float | None = None
    p: float | None = None
    p_holm: float | None = None
    comparisons: int | None = None


TYPES = {"str": pa.string(), "float": pa.float64(), "int": pa.int64()}
SCHEMA = pa.schema([(field.name, TYPES[str(field.type).split(" | ")[0]]) for field in fields(Row)])


def save_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as one parquet file, which appears whole. Raises OSError."""
    with written_whole(path) as beside:
        pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA), beside)


def load_rows(path: str | Path) -> list[Row]:
    """The rows of results.parquet. Raises OSError."""
    return [Row(**line) for line in pq.read_table(path).to_pylist()]
