"""A build from embedded shards is the build that embeds for itself, to the last bit."""

import numpy as np
import pytest

from medssl.backbones import Backbone, Embedder, embeddings
from medssl.backbones.embed_shard import embed_shard
from medssl.backbones.reading import union
from medssl.backbones.shards import ShardNumber
from medssl.bundle import build_bundle
from medssl.bundle.build import readings_of
from medssl.bundle.cases import cases_fingerprint, split_cases
from medssl.data.load import load_data
from medssl.errors import DataError
from tests.conftest import TINY_TASKS, UNCHOSEN, make_folder


def test_with_and_without_shards_a_build_gives_the_same_bundle(tiny_backbone, tmp_path, monkeypatch):
    """Also where a file cannot be read: no other picture's batch is cut differently for it."""
    monkeypatch.setattr(embeddings, "PART_IMAGES", 16)
    data = make_folder(tmp_path / "data", TINY_TASKS["shapes"], 0)
    (data / "dots-021.png").write_bytes(b"broken")
    backbone = Backbone.from_pretrained(tiny_backbone)
    quiet = {"cache_dir": tmp_path / "cache", "progress": False, **UNCHOSEN}
    whole = build_bundle(data, "shapes", backbone, **quiet)
    pooling = union(readings_of(backbone, "auto").values()).pooling
    for number in (1, 2, 3):
        shard = ShardNumber(number, 3)
        embed_shard(load_data(data), Embedder.of(backbone, pooling=pooling), shard, tmp_path / "out", progress=False)

    def never(*_):
        raise AssertionError("embedded again")

    monkeypatch.setattr(backbone, "embed", never)
    quiet["cache_dir"] = tmp_path / "empty"
    merged = build_bundle(data, "shapes", backbone, embedded=tmp_path / "out", **quiet)
    assert np.array_equal(*(np.asarray(bundle.cases["embedding"][:], np.float32) for bundle in (whole, merged)))
    assert cases_fingerprint(split_cases(merged.cases)) == cases_fingerprint(split_cases(whole.cases))
    assert merged.metrics == whole.metrics and merged.card == whole.card and len(merged.cases) == 59
    (tmp_path / "out" / "shard-2-of-3" / "rows-00000016.parquet").unlink()
    with pytest.raises(DataError, match="Shard 2/3 is not complete"):
        build_bundle(data, "shapes", backbone, embedded=tmp_path / "out", **quiet)
