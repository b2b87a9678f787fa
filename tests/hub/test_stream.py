"""A Hub data set as a stream: the same rows as by download, no file kept; and what cannot be streamed."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage

from tests.hub.conftest import Failed

SOURCE, ROWS, GROUP_ROWS = "lab/tones", 26, 4
FEATURES = Features(
    {"image": Image(), "label": ClassLabel(names=["dark", "light"]), "patient": Value("string"), "age": Value("int64")}
)


def png(number: int) -> bytes:
    """A picture of its own for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    stream = io.BytesIO()
    PILImage.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def parquet(numbers: range) -> bytes:
    """A parquet file of these rows as `Dataset.push_to_hub` writes it, several row groups long."""
    rows = {
        "image": [{"bytes": png(number), "path": f"{number}.png"} for number in numbers],
        "label": [number % 2 for number in numbers],
        "patient": [f"p{number // 2}" for number in numbers],
        "age": list(numbers),
    }
    stream = io.BytesIO()
    pq.write_table(Dataset.from_dict(rows, FEATURES).data.table, stream, row_group_size=GROUP_ROWS)
    return stream.getvalue()


@pytest.fixture(scope="module")
def repo(hub):
    """A data set of two splits, the first in two files."""
    files = {
        "data/train-00000-of-00002.parquet": parquet(range(11)),
        "data/train-00001-of-00002.parquet": parquet(range(11, 20)),
        "data/test-00000-of-00001.parquet": parquet(range(20, ROWS)),
    }
    return hub.add("dataset", SOURCE, {"README.md": b"# tones", **files})


def test_a_stream_has_the_rows_of_a_download_and_keeps_no_file(repo, reader, publisher):
    streamed = publisher.do("streamed", source=SOURCE)
    assert len(streamed["rows"]) == ROWS and streamed["stored"] == 0
    assert streamed["rows"][0] == ["train/0", 0, "p0", "train", "", hashlib.sha256(png(0)).hexdigest()]
    assert streamed["rows"][-1][:4] == ["test/5", 1, "p12", "test"]
    assert streamed["rows"] == reader.do("downloaded", source=SOURCE)


def test_a_shard_of_a_stream_is_that_of_a_download(repo, reader, publisher, encoders, tmp_path):
    backbone = str(encoders[2][0])
    for name, stream in (("streamed", True), ("downloaded", False)):
        assert reader.do("embedded", source=SOURCE, backbone=backbone, out=str(tmp_path / name), stream=stream) == 0
    (one,), (other,) = ([*Path(tmp_path / name).rglob("*.parquet")] for name in ("streamed", "downloaded"))
    assert one.read_bytes() == other.read_bytes() and pq.read_metadata(one).num_rows == ROWS


def test_only_the_row_groups_of_a_shard_are_asked_for(repo, hub, publisher, encoders, tmp_path):
    """All 26 rows are of one part, so that the second of two shards has none: columns are read, no picture."""
    before = len(hub.calls)
    backbone = str(encoders[2][0])
    given = {"source": SOURCE, "backbone": backbone, "out": str(tmp_path), "stream": True}
    assert publisher.do("embedded", shard="2/2", **given) == 0
    columns = sum("resolve" in call and call.startswith("GET") for call in hub.calls[before:])
    before = len(hub.calls)
    assert publisher.do("embedded", shard="1/2", **given) == 0
    assert sum("resolve" in call and call.startswith("GET") for call in hub.calls[before:]) > columns


def test_what_cannot_be_streamed_is_said(repo, hub, publisher, tmp_path):
    hub.add("dataset", "lab/loose", {"dark/1.png": png(1), "light/2.png": png(2)})
    with pytest.raises(Failed, match="no parquet files but imagefolder data.*refs/convert/parquet") as failed:
        publisher.do("streamed", source="lab/loose")
    assert failed.value.kind == "DataError"
    with pytest.raises(Failed, match="is on this machine"):
        publisher.do("streamed", source=str(tmp_path))
    with pytest.raises(Failed, match="'lab/nowhere' is no folder here.*could not be loaded"):
        publisher.do("streamed", source="lab/nowhere")


def test_a_picture_that_the_hub_no_longer_gives_ends_the_run_with_a_sentence(hub, publisher):
    """It is no unreadable file, which would be left out."""
    source, path = "lab/going", "data/train-00000-of-00001.parquet"
    files = hub.add("dataset", source, {"README.md": b"# going", path: parquet(range(12))}).files
    assert publisher.do("open_stream", source=source) == 12
    assert publisher.do("picture_of_stream", source=source, row=5) == hashlib.sha256(png(5)).hexdigest()
    del files[path]
    assert publisher.do("picture_of_stream", source=source, row=7) == hashlib.sha256(png(7)).hexdigest()
    with pytest.raises(Failed, match="could not be read on.*run the same command again") as failed:
        publisher.do("picture_of_stream", source=source, row=8)
    assert failed.value.kind == "DataError"
