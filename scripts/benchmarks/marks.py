"""Where a measured table stands in a page of the docs: between two marks."""

from __future__ import annotations

from pathlib import Path

from medssl.errors import DataError
from medssl.files import written_whole


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put a text between the marks of a page, whole or not at all. Raises DataError for a page without them."""
    before, first, rest = page.read_text("utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise DataError(f"{page} has no place for the table: it needs the lines {begin!r} and {end!r}.")
    with written_whole(page) as beside:
        beside.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", "utf-8")
