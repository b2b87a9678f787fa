"""The benchmark of the memory of a build and of a shard, at a size that takes seconds."""

import sys

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))

import build_memory  # noqa: E402


@pytest.mark.parametrize("work", build_memory.WORKS)
def test_it_tells_its_peak(work, tiny_backbone):
    found = build_memory.measure(60, str(tiny_backbone), 1, work, 28)
    assert found["images"] == found["cases"] == 60 and found["peak_mb"] >= found["before_mb"] > 50
