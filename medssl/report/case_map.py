"""The map of a bundle's cases as HTML: dots coloured by label or source, thumbnails on hover, the image among them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from PIL import Image

from medssl.bundle.bundle import Bundle
from medssl.errors import ImageError
from medssl.images.read import read_image
from medssl.library.case_map import drawn_rows
from medssl.report.sentences import pretty
from medssl.templates import environment

# Okabe & Ito 2008: told apart by those who see colours differently; the yellow is left out, it is faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C564B")
TILE, QUALITY = 40, 75  # a thumbnail on the map's sheet: pixels a side, JPEG quality
WIDTH, HEIGHT, MARGIN = 640, 420, 14
SCRIPT = files("medssl.report").joinpath("pages/case_map.js").read_text("utf-8")
TEMPLATE = environment("medssl.report", "pages").get_template("case_map.html.jinja")


@dataclass(frozen=True)
class Coloring:
    """What the dots are coloured by: a title, a number a dot `[M]`, and the numbers' names, no more than COLORS."""

    title: str
    numbers: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class CaseMap:
    """The drawn cases of a library: their rows in the bundle's cases `[M]`, places `[M, 2]`, ids, labels, sources."""

    rows: np.ndarray
    points: np.ndarray
    ids: list[str]
    labels: list[str]
    sources: list[str]
    total: int

    @classmethod
    def of(cls, bundle: Bundle) -> CaseMap:
        """The map of a bundle; without any dot where it was built before there were maps."""
        rows, points = drawn_rows(bundle.cases)
        table = bundle.cases.select_columns(["id", "label", "source"]).with_format(None).select(rows)[:]
        labels = [bundle.labels[number] for number in table["label"]]
        return cls(rows, points, table["id"], labels, [text or "" for text in table["source"]], len(bundle.library))

    def colorings(self) -> list[Coloring]:
        """By label and by source."""
        named = [text or "no source named" for text in self.sources]
        return [coloring("label", [pretty(label) for label in self.labels]), coloring("source", named)]


def coloring(title: str, values: Sequence[str]) -> Coloring:
    """Values as numbers, the most frequent first; beyond the number of colours they are others."""
    names, inverse, counts = np.unique(np.asarray(values, object).astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    kept = order if len(order) <= len(COLORS) else order[: len(COLORS) - 1]
    place = np.full(len(names), len(kept))
    place[kept] = np.arange(len(kept))
    others = [] if len(kept) == len(names) else [f"other {title}s"]
    return Coloring(title, place[inverse], [str(names[index]) for index in kept] + others)


def in_picture(points: np.ndarray) -> np.ndarray:
    """Places `[M, 2]` of the unit square in the picture's pixels."""
    size = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    return np.round(MARGIN + points * size, 1)


def case_map_html(view: CaseMap, own: np.ndarray | None = None) -> str:
    """The map as SVG with its choice of colours and legend; `own [2]` is the place of the image at hand."""
    by = view.colorings() if len(view.rows) else []
    numbers = zip(*(one.numbers.tolist() for one in by), strict=True) if by else ()
    dots = [
        {"x": x, "y": y, "id": identity, "label": label, "source": source, "numbers": kinds}
        for (x, y), identity, label, source, kinds in zip(
            in_picture(view.points).tolist(), view.ids, view.labels, view.sources, numbers, strict=False
        )
    ]
    return TEMPLATE.render(
        dots=dots,
        colorings=by,
        colors=COLORS,
        width=WIDTH,
        height=HEIGHT,
        tile=TILE,
        columns=sheet_columns(len(view.rows)),
        total=view.total,
        own=None if own is None else in_picture(own).tolist(),
    )


def sheet_columns(count: int) -> int:
    """How many thumbnails stand in a row of the sheet."""
    return max(1, int(np.ceil(np.sqrt(count))))


def thumbnail_sheet(bundle: Bundle, view: CaseMap) -> str:
    """All thumbnails of a map on one JPEG, as a data address; a case without a picture leaves its tile gray."""
    columns = sheet_columns(len(view.rows))
    sheet = Image.new("RGB", (columns * TILE, -(-max(1, len(view.rows)) // columns) * TILE), "gray")
    for place, row in enumerate(view.rows.tolist()):
        try:
            picture = read_image(bundle.cases[row]["image"])
        except (ImageError, TypeError, AttributeError):
            continue
        sheet.paste(
            picture.resize((TILE, TILE), Image.Resampling.BOX), (place % columns * TILE, place // columns * TILE)
        )
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
