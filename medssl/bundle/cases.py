"""The cases of a bundle as a table: its columns, what is allowed in them, and all that they hold as one hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, List, Value
from datasets import Image as ImageFeature

from medssl.errors import BundleError
from medssl.library.library import embedding_matrix

CASE_COLUMNS = ("id", "image", "label", "split", "group_id", "source", "embedding")
TEXT_COLUMNS = ("id", "split", "group_id", "source")
SPLITS = ("train", "val", "test")
REMEDY = "Build or download the bundle again."


def without_paths(table: pa.Table) -> pa.Table:
    """The cases' table with every path of a picture empty, and no picture where a path was all of it.

    A stranger's path would name a file of this machine, which decoding, saving or publishing would then read.
    """
    index = table.schema.get_field_index("image")
    field = None if index < 0 else table.schema.field(index)
    if field is None or field.type != ImageFeature.pa_type:
        return table  # which `check_cases` refuses
    chunks = [
        pa.StructArray.from_arrays(
            [chunk.field("bytes"), pa.nulls(len(chunk), pa.string())],
            fields=list(field.type),
            mask=pc.or_(chunk.is_null(), chunk.field("bytes").is_null()),
        )
        for chunk in table.column(index).chunks
    ]
    return table.set_column(index, field, pa.chunked_array(chunks, field.type))


def check_cases(cases: Dataset, labels: Sequence[str], width: int, name: str) -> None:
    """Raises BundleError unless every case has all that is read of it, for a head with these labels and dimension."""
    missing = [column for column in CASE_COLUMNS if column not in cases.column_names]
    if missing:
        raise BundleError(f"The cases of bundle {name!r} lack the columns {', '.join(missing)}.")
    for column in TEXT_COLUMNS:
        feature = cases.features[column]
        if not isinstance(feature, Value) or feature.dtype not in ("string", "large_string"):
            raise BundleError(f"The column {column} of the cases of {name!r} holds {feature}, not text. {REMEDY}")
        if column != "source" and None in cases[column][:]:
            raise BundleError(f"The column {column} of the cases of {name!r} has empty places. {REMEDY}")
    unknown = sorted(set(cases["split"][:]) - set(SPLITS))
    if unknown:
        raise BundleError(f"The cases have the splits {', '.join(unknown)}; allowed: {', '.join(SPLITS)}.")
    if not isinstance(cases.features["image"], ImageFeature):
        raise BundleError(f"The column image of the cases of {name!r} holds no pictures. {REMEDY}")
    check_labels(cases, labels, name)
    feature = cases.features["embedding"]
    if not isinstance(feature, List) or feature.length != width:
        held = getattr(feature, "length", feature)
        raise BundleError(f"The head reads embeddings of {width} numbers; the cases hold {held}.")
    if not np.isfinite(embedding_matrix(cases)).all():
        raise BundleError(f"The embeddings of the cases of {name!r} are not all finite numbers. {REMEDY}")


def check_labels(cases: Dataset, labels: Sequence[str], name: str) -> None:
    """Raises BundleError unless every case has one of the head's labels."""
    feature = cases.features["label"]
    if not isinstance(feature, ClassLabel):
        raise BundleError(f"The column label of the cases of {name!r} holds {feature}, not classes. {REMEDY}")
    if list(feature.names) != list(labels):
        raise BundleError(f"The head's labels are {list(labels)}; the cases' labels are {list(feature.names)}.")
    if any(label is None or not 0 <= label < len(labels) for label in cases["label"][:]):
        raise BundleError(f"Some cases of {name!r} have no label, or one outside {list(labels)}. {REMEDY}")


def split_cases(cases: Dataset, images: bool = True) -> DatasetDict:
    """The cases by split, in their order; without `images` their thumbnails are empty."""
    if not images:
        columns = cases.column_names
        empty = cases.remove_columns("image").add_column("image", [None] * len(cases), feature=ImageFeature())
        cases = empty.select_columns(columns)
    names = cases["split"][:]
    rows = {split: [row for row, name in enumerate(names) if name == split] for split in SPLITS}
    return DatasetDict({split: cases.select(chosen) for split, chosen in rows.items() if chosen})


def cases_fingerprint(parts: DatasetDict) -> str:
    """A hash of all that the cases hold, whatever file they lie in; only the bytes of a picture count, never a path."""
    digest = hashlib.sha256()
    for split, cases in parts.items():
        digest.update(f"{split} {cases.features['label'].names}".encode())
        digest.update(embedding_matrix(cases).tobytes())
        for row in cases.remove_columns("embedding").cast_column("image", ImageFeature(decode=False)):
            data = (row.pop("image") or {}).get("bytes") or b""
            digest.update(json.dumps(row, sort_keys=True).encode() + hashlib.sha256(data).digest())
    return digest.hexdigest()
