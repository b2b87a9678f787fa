"""What the columns of a metadata.csv mean, under the names that people give them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from medssl.data.rows import BOX_COLUMNS
from medssl.errors import DataError

# Our column -> what others call it, written without blanks, case, '-' and '_'.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "file_name": ("filename", "file", "filepath", "path", "image", "imagename", "imagefile", "imagepath", "img"),
    "label": ("label", "class", "classname", "category", "diagnosis", "target"),
    "split": ("split", "fold", "subset", "partition", "set", "usage"),
    "group_id": ("pid", "mrn", "ptid"),  # and GROUP
    "source": ("source", "site", "center", "centre", "hospital", "institution", "origin", "scanner"),
    **{name: (name.replace("_", ""),) for name in BOX_COLUMNS},
    "mask_file": ("maskfile", "maskpath", "maskname"),
}
# Whom or what the images of one group come from, with what people add to say "its name".
BEINGS = "patient|pat|pt|subject|subj|sub|participant|person|individual|client|donor|animal|mouse|rat|dog|case|specimen"
THINGS = "group|lesion|slide|wsi|study|exam|examination|accession|series|volume|scan|cluster"
NAMED = "id|ids|identifier|name|key|code|uid|uuid|instanceuid|hash|barcode|submitterid|pseudonym"
# A number tells patients apart; of a slide or series it often only counts within one patient.
COUNTED = "no|nr|num|number|index|idx"
HIDDEN = "(anon|anonymi[sz]ed|deidentified|hashed|pseudo|pseudonymi[sz]ed|bcr)?"
GROUP = re.compile(
    rf"{HIDDEN}(({BEINGS})s?({NAMED}|{COUNTED})?|accession(no|nr|number)|({THINGS})s?({NAMED})?){HIDDEN}"
)
NEEDED = ("file_name", "label")
# Several of these may stand in one table: each is read, and the coarsest is the group.
SEVERAL = ("group_id",)


def squashed(header: str) -> str:
    """A header cell without blanks, case, '-', '_' and odd forms of letters."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", header)).lower()


def means(cell: str, name: str) -> bool:
    """Whether a header cell means one of our columns."""
    plain = squashed(cell)
    return plain in SYNONYMS[name] or (name == "group_id" and GROUP.fullmatch(plain) is not None)


@dataclass(frozen=True)
class Columns:
    """Which header cells hold what (`ours -> cells as written`), and what is to be said of it."""

    cells: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def one(self, name: str) -> str | None:
        """The cell that holds one of our columns, None where the table has none."""
        return self.cells.get(name, [None])[0]


def exact_first(name: str, cells: Sequence[str]) -> list[str]:
    """The cells that are called as ours is, whatever their case and blanks; without any, all that mean it."""
    exact = [cell for cell in cells if squashed(cell) == squashed(name)]
    return exact or list(cells)


def read_header(header: Sequence[str], place: str, needed: Sequence[str] = NEEDED) -> Columns:
    """What each header cell means; `needed` are those of our columns that must be there.

    Raises DataError where a needed column is missing, or where two mean the same and it cannot be told which is right.
    """
    written = [cell for cell in header if cell.strip()]
    twice = sorted({cell for cell in written if [squashed(other) for other in written].count(squashed(cell)) > 1})
    if twice:
        raise DataError(f"{place} has two columns of one name: {', '.join(map(repr, twice))}. Keep one of them.")
    cells: dict[str, list[str]] = {}
    notes: list[str] = []
    for name in SYNONYMS:
        meant = [cell for cell in written if means(cell, name)]
        kept = meant if name in SEVERAL else exact_first(name, meant)
        if len(kept) > 1 and name not in SEVERAL:
            raise DataError(
                f"{place} has several columns that may mean {name}: {', '.join(map(repr, kept))}. "
                f"Rename the right one to {name}."
            )
        if kept:
            cells[name] = kept
            renamed = [repr(cell) for cell in kept if cell != name]
            notes += [f"{place}: the column {', '.join(renamed)} is read as {name}."] if renamed else []
    missing = [name for name in needed if name not in cells]
    if missing:
        raise DataError(
            f"{place} lacks the column {', '.join(missing)}; it has: {', '.join(written) or 'no column'}. "
            "Name the columns file_name and label, and optionally split, group_id and source."
        )
    used = {cell for kept in cells.values() for cell in kept}
    unused = [cell for cell in written if cell not in used]
    if unused:
        several = "s" if len(unused) > 1 else ""
        notes.append(f"{place}: not used: the column{several} {', '.join(map(repr, unused))}.")
    return Columns(cells, notes, unused)
