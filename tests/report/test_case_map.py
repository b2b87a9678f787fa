"""The map as HTML: every drawn case a dot, coloured two ways, nothing of the data as markup."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from medssl.report.case_map import COLORS, CaseMap, case_map_html, coloring, in_picture, thumbnail_sheet


@pytest.fixture(scope="module")
def view(tiny_bundles):
    return CaseMap.of(tiny_bundles["shapes"])


def test_every_drawn_case_is_a_dot_with_its_label_and_source(view, tiny_bundles):
    html = case_map_html(view)
    assert html.count("<circle") == len(view.rows) == len(tiny_bundles["shapes"].library)
    dot = re.search(rf'<circle cx="([\d.]+)" cy="([\d.]+)"[^>]*data-id="{view.ids[3]}"[^>]*>', html)
    assert [float(dot[1]), float(dot[2])] == in_picture(view.points[3]).tolist()
    assert f'data-label="{view.labels[3]}"' in dot[0] and 'data-source="synthetic"' in dot[0]
    assert "ms-map-own" not in html and "ms-map-own" in case_map_html(view, np.array([0.5, 0.5]))


def test_names_of_the_data_cannot_become_markup(view):
    html = case_map_html(replace(view, sources=["<script>alert(1)</script>"] * len(view.rows)))
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_many_sources_end_in_others():
    found = coloring("source", [f"s{number % 12:02d}" for number in range(40)])
    assert len(found.names) == len(COLORS) and found.names[-1] == "other sources"
    assert found.numbers.max() == len(COLORS) - 1 and found.names[0] == "s00"
    assert coloring("source", ["b", "a", "b"]).numbers.tolist() == [0, 1, 0]


def test_a_bundle_without_a_map_says_so(view):
    empty = replace(view, rows=view.rows[:0], points=view.points[:0], ids=[], labels=[], sources=[])
    assert "before there were maps" in case_map_html(empty)


def test_the_sheet_holds_a_picture_for_each_case(view, tiny_bundles):
    assert thumbnail_sheet(tiny_bundles["shapes"], view).startswith("data:image/jpeg;base64,")
