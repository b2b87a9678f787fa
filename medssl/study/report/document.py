"""A document of plain blocks, written as Markdown beside its pictures or as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from medssl.audit.worst_pairs import WorstPair
from medssl.templates import environment

TEMPLATE = environment("medssl.study", "report").get_template("report.html.jinja")


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A plot: PNG bytes, the file's name beside the Markdown, and what it shows."""

    kind: ClassVar[str] = "picture"
    name: str
    caption: str
    png: bytes

    @property
    def address(self) -> str:
        """The picture itself as an address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class MapPanel:
    """The map of one backbone: its name, and a dot an image as (x, y, the numbers of its colors, words)."""

    name: str
    dots: Sequence[tuple[float, float, Sequence[int], str]]


@dataclass(frozen=True)
class LiveMap(Picture):
    """A map of embeddings: its plot beside Markdown; in HTML dots that say what they are, in colors to choose.

    `colorings` are titles with the names of their numbers. It works without a script.
    """

    kind: ClassVar[str] = "map"
    panels: Sequence[MapPanel]
    colorings: Sequence[tuple[str, Sequence[str]]]
    colors: Sequence[str]
    side: int


@dataclass(frozen=True)
class Pairs:
    """Offending pairs of an audit; their thumbnails are shown in HTML."""

    kind: ClassVar[str] = "pairs"
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


def to_html(title: str, answer: str, blocks: Sequence[Block]) -> str:
    """The whole document as one HTML file: pictures inside it, no script, no request to anywhere; texts are escaped."""
    return TEMPLATE.render(title=title, answer=answer, blocks=blocks)
