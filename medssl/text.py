"""Text that came from a file name, a label or a table, made fit to be printed."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line without control characters: what a terminal would obey or hide (ESC, newline, marks that turn the
    writing direction, undecodable bytes of a file name) is written as its escape, such as `\\x1b`.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
