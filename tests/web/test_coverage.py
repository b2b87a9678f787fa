"""The figures say where the prediction sets hold, and promise no more than validation can."""

import re

from medssl.heads.config import Thresholds
from medssl.web.coverage import coverage_html, place


def test_measured_coverage_and_reliability_are_shown(tiny_bundles):
    bundle = tiny_bundles["shapes"]
    shown = coverage_html(bundle.metrics, bundle.head.thresholds)
    rows = bundle.metrics["classification"]["coverage"]["by_class"]
    assert all(row["name"] in shown for row in rows) and "least confident third" in shown
    assert all(sentence.split()[0] in shown for sentence in bundle.head.thresholds.promise())
    assert shown.count("<circle") == len(bundle.metrics["classification"]["reliability"]) > 0


def test_an_earlier_bundle_says_that_it_was_not_measured():
    shown = coverage_html({}, Thresholds(conformal_probability=0.3))
    assert "earlier version" in shown and "not measured" in shown and "<svg" not in shown


def test_names_are_escaped():
    row = {"name": "<b>x</b>", "n": 0, "groups": 0}
    shown = coverage_html({"classification": {"coverage": {"by_class": [row]}}}, Thresholds())
    assert "<b>x" not in shown and "&lt;b&gt;x" in shown


def test_the_diagonal_of_the_plot():
    points = [place(value, value) for value in (0, 0.5, 1)]
    assert points == [(60, 190), (160, 100), (260, 10)]
    assert re.search(r'x1="60" y1="190" x2="260" y2="10"', coverage_html({"classification": {"reliability": [
        {"confidence": 0.5, "accuracy": 0.5, "n": 3, "low": None, "high": None}]}}, Thresholds()))  # fmt: skip
