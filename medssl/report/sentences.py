"""Words that page and report say alike."""

from __future__ import annotations

UNFAMILIAR = "This image does not look like the images this model has seen; do not trust the class."
NO_EVIDENCE = (
    "No evidence found: no part of this image moved the probability of “{label}”. The picture is shown as it is."
)


def pretty(label: str) -> str:
    """A label as people write it."""
    return label.replace("_", " ")


def percent(value: float) -> str:
    """A share as text, never rounded up to certainty."""
    if value > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if value < 0.001 else f"{100 * value:.1f} %"
