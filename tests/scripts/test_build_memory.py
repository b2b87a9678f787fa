"""The benchmark of a build's memory, at a size that takes seconds."""

import sys

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))

import build_memory  # noqa: E402


def test_a_build_tells_its_peak(tiny_backbone):
    found = build_memory.measure(60, str(tiny_backbone), seed=1)
    assert found["images"] == found["cases"] == 60 and found["peak_mb"] >= found["before_mb"] > 50
