"""What a card says of cases that came after the figures were measured."""

from __future__ import annotations

import re

from medssl.hub.card_signature import is_edited, sign
from medssl.text import markdown

START, END = "<!-- additions -->", "<!-- /additions -->"
BLOCK = re.compile(rf"{START}.*?{END}\n*", re.DOTALL)
HEADING = "## Figures\n\n"


def additions_block(metrics: dict) -> str:
    """The paragraph of a card on added cases; "" where there are none."""
    additions = metrics.get("additions") or []
    if not additions:
        return ""
    listed = ", ".join(f"{len(one['cases'])} on {one['date']} ({one['id']})" for one in additions)
    said = (
        f"Measured before cases were added to the library: {markdown(listed)}. The head was not fitted again; figures "
        "of retrieval and familiarity are those of the library before."
    )
    return f"{START}\n**{said}**\n{END}"


def with_additions(card: str, metrics: dict) -> str:
    """The card with that paragraph under its figures, or without it; a card edited by hand stays known as edited."""
    edited, block = is_edited(card), additions_block(metrics)
    text = BLOCK.sub("", card)
    if block:
        place = text.find(HEADING)
        at = len(text.rstrip()) if place < 0 else place + len(HEADING)
        text = f"{text[:at]}{'' if place >= 0 else chr(10) * 2}{block}\n\n{text[at:].lstrip()}"
    return text if edited or not text.strip() else sign(text)
