"""The part of the figures that shows where the prediction sets hold, and how confidence and accuracy agree."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from medssl.heads.config import Thresholds
from medssl.metrics import COVERAGE_HEADER, coverage_rows
from medssl.templates import environment

TEMPLATE = environment("medssl.web", "html").get_template("coverage.html.jinja")
LEFT, BOTTOM, WIDTH, HEIGHT = 60, 190, 200, 180


def place(x: float, y: float) -> tuple[float, float]:
    """Where a point of the unit square lies in the plot."""
    return round(LEFT + WIDTH * x, 1), round(BOTTOM - HEIGHT * y, 1)


def plotted(item: Mapping) -> dict:
    """A bin of the reliability plot, in the plot's own units."""
    x, y = place(item["confidence"], item["accuracy"])
    ends = {"low": item.get("low"), "low_y": 0.0, "high_y": 0.0}
    if item.get("low") is not None and item.get("high") is not None:
        ends = {"low": item["low"], "low_y": place(0, item["low"])[1], "high_y": place(0, item["high"])[1]}
    title = f"{item['n']} images at a confidence of {item['confidence']:.0%}: {item['accuracy']:.0%} right"
    return {"x": x, "y": y, "radius": round(min(8.0, 2.5 + item["n"] ** 0.5 / 4), 1), "title": title, **ends}


def coverage_html(metrics: Mapping, thresholds: Thresholds) -> Markup:
    """Promise, coverage table and reliability plot of a bundle as HTML, which another template takes as it is."""
    classification = metrics.get("classification") or {}
    ticks = [{"x": place(at, 0)[0], "y": place(0, at)[1] + 3, "text": f"{at:.0%}"} for at in (0, 0.25, 0.5, 0.75, 1)]
    shown = TEMPLATE.render(
        promise=thresholds.promise(),
        header=COVERAGE_HEADER,
        rows=coverage_rows(classification),
        bins=[plotted(item) for item in classification.get("reliability") or []],
        ticks=ticks,
    )
    return Markup(shown)  # noqa: S704 - its values were escaped by Jinja
