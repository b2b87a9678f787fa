"""Text that came from a file name, a label or a table, made fit to be printed, and to stand in Markdown."""

from __future__ import annotations

import re

# What Markdown would obey inside a line: code, tables, HTML, emphasis, links, entities; `no_tumor` is no emphasis.
MARKUP = re.compile(r"[\\`|<*~]|\](?=\()|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
BACKTICKS = re.compile("`+")
FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # what a spreadsheet may compute by


def printable(text: str) -> str:
    """One line without control characters: what a terminal would obey or hide (ESC, newline, marks that turn the
    writing direction, undecodable bytes of a file name) is written as its escape, such as `\\x1b`.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def spreadsheet_cell(value: object) -> object:
    """A value of a table that a spreadsheet takes for text and not for a formula, in one line of plain characters.

    A text that begins with =, +, - or @ gets an apostrophe before it, see
    https://owasp.org/www-community/attacks/CSV_Injection; control characters are written as escapes.
    """
    if not isinstance(value, str):
        return value
    plain = printable(value)
    return f"'{plain}" if value[:1] in FORMULA or value.lstrip()[:1] in FORMULA else plain


def markdown(text: str) -> str:
    """One line of Markdown that shows this text as it is, inside a paragraph, a list or a cell of a table."""
    return MARKUP.sub(lambda mark: f"\\{mark[0]}", printable(text))


def fence(text: str, least: int) -> str:
    """At least that many backticks, and more than stand together in the text: what encloses it as code."""
    longest = max(map(len, BACKTICKS.findall(text)), default=0)
    return "`" * max(least, longest + 1)


def code(text: str) -> str:
    """One line of text as code in a line of Markdown."""
    line = printable(text)
    marks, pad = fence(line, 1), " " if line.startswith("`") or line.endswith("`") else ""
    return f"{marks}{pad}{line}{pad}{marks}"


def code_block(text: str) -> str:
    """Lines of text as a block of code in Markdown."""
    marks = fence(text, 3)
    return "\n".join([marks, *map(printable, text.split("\n")), marks])


def quoted(text: str) -> str:
    """Text as a string of Python code, on one line."""
    return '"' + printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'
