"""A document of plain blocks, written as Markdown beside its pictures or as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from medssl.audit.worst_pairs import WorstPair

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto; }
th, td { border: 1px solid #ccc; padding: .25rem .5rem; text-align: left; vertical-align: top; }
th { background: #f3f3f3; }
img { max-width: 100%; height: auto; }
.answer { font-size: 17px; border-left: 4px solid #0072b2; padding-left: 1rem; }
figcaption { color: #555; font-size: 13px; }
figure { margin: 1rem 0; }
"""


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A plot: PNG bytes, the file's name beside the Markdown, and what it shows."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Pairs:
    """Offending pairs of an audit; their thumbnails are shown in HTML."""

    pairs: Sequence[WorstPair]

    def table(self) -> Table:
        """The pairs without their pictures."""
        rows = [
            [
                f"{pair.kind} ({pair.severity})",
                f"{pair.similarity:.4f}, {pair.measure}" + (f", {pair.turn}" if pair.turn else ""),
                *(f"{pair.files[i]}: {pair.labels[i]}, {pair.splits[i]}, group {pair.groups[i]}" for i in (0, 1)),
            ]
            for pair in self.pairs
        ]
        return Table(["finding", "similarity", "one image", "the other"], rows)


Block = Heading | Paragraph | Bullets | Table | Picture | Pairs


def markdown_table(table: Table) -> str:
    """A table as Markdown."""
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def markdown_block(block: Block) -> str:
    """One block as Markdown."""
    if isinstance(block, Heading):
        return f"## {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, Bullets):
        return "\n".join(f"- {item}" for item in block.items)
    if isinstance(block, Picture):
        return f"![{block.caption}]({block.name})"
    return markdown_table(block.table() if isinstance(block, Pairs) else block)


def to_markdown(title: str, answer: str, blocks: Sequence[Block]) -> str:
    """The whole document as Markdown; pictures are named files beside it."""
    return "\n\n".join([f"# {title}", answer, *map(markdown_block, blocks)]) + "\n"


def html_table(table: Table) -> str:
    """A table as HTML."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = ("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def html_pairs(block: Pairs) -> str:
    """Offending pairs as HTML, with their thumbnails."""
    table = block.table()
    lines = []
    for pair, cells in zip(block.pairs, table.rows, strict=True):
        shown = [
            f'<img src="{escape(address)}" alt="{escape(file)}"><br>{escape(cell)}'
            for address, file, cell in zip(pair.thumbnails, pair.files, cells[2:], strict=True)
        ]
        lines.append([*map(escape, cells[:2]), *shown])
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = ("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def html_block(block: Block) -> str:
    """One block as HTML; every text is escaped."""
    if isinstance(block, Heading):
        return f"<h2>{escape(block.text)}</h2>"
    if isinstance(block, Paragraph):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Bullets):
        return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Picture):
        address = "data:image/png;base64," + base64.b64encode(block.png).decode()
        caption = escape(block.caption)
        return f'<figure><img src="{address}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    return html_pairs(block) if isinstance(block, Pairs) else html_table(block)


def to_html(title: str, answer: str, blocks: Sequence[Block]) -> str:
    """The whole document as one HTML file: pictures inside it, no script, no request to anywhere."""
    body = "\n".join(map(html_block, blocks))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        f'<p class="answer">{escape(answer)}</p>\n{body}\n</body></html>\n'
    )
