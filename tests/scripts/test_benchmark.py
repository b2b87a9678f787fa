"""`scripts/benchmark.py`: a table goes into a page between the topic's markers, and nowhere else."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts")]

import benchmark  # noqa: E402

from medssl.errors import DataError  # noqa: E402

PAGE = """a
<!-- search: begin -->
{}
<!-- search: end -->
b
<!-- embed: begin -->
kept
<!-- embed: end -->
"""


def test_a_table_replaces_the_one_before(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.format("old"))
    benchmark.put_into(page, "search", "| new \\1 |\n")
    benchmark.put_into(page, "search", "| new \\1 |\n")
    assert page.read_text() == PAGE.format("| new \\1 |")
    with pytest.raises(DataError, match="no place for start"):
        benchmark.put_into(page, "start", "x")


def test_the_page_of_figures_has_a_place_for_every_speed():
    text = (ROOT / "docs" / "performance.md").read_text("utf-8")
    for topic in ("embed", "search", "start", "explain", "visitors"):
        assert f"<!-- {topic}: begin -->" in text and f"<!-- {topic}: end -->" in text
