"""The benchmark of visitors: what it asks, and what it counts as an answer. The crowd of 20 is run by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"))

import soak  # noqa: E402
import visitors  # noqa: E402


def test_a_crowd_is_answered_each_from_its_own_address(app):
    crowd = visitors.Crowd(app.url, 0, 0)
    seconds = crowd.come([*((user, visitors.QUICK, 1) for user in range(10)), (10, visitors.HEATMAP, 1)])
    assert crowd.errors == [], "ten visitors of one address would be told to wait"
    assert {name: len(found) for name, found in seconds.items()} == {"class": 10, "cases": 10, "heatmap": 1}


def test_what_is_no_answer_is_said(app):
    with pytest.raises(RuntimeError, match="classify: .*SVG"):
        visitors.ask(app.url, 0, visitors.QUICK["class"], b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    picture = soak.good_file(np.random.default_rng(0))
    with pytest.raises(RuntimeError, match="similar: .*top_k is 0"):
        visitors.ask(app.url, 0, ("similar", ["", 0]), picture)


def test_figures_of_a_question():
    found = visitors.row("20", "class", list(np.arange(1, 101) / 100))
    assert (found["answers"], found["p50_s"], found["p95_s"]) == (100, pytest.approx(0.505), pytest.approx(0.9505))
