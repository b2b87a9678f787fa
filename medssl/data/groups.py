"""Which rows belong to one patient, slide or series, from the columns that say so."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from medssl.data.rows import NO_GROUP
from medssl.errors import DataError

# From how many values, of at most what share of the rows, with one label for at least what share of the values, a
# column without a known name looks like one of groups.
FEWEST_GROUPS, REPEATING, ONE_LABEL = 10, 0.7, 0.95


def group_key(text: str) -> str:
    """A group's name as it is compared: without blanks around it, case, and the ".0" that a spreadsheet adds."""
    plain = unicodedata.normalize("NFKC", text).strip().casefold()
    return re.sub(r"^(\d+)\.0+$", r"\1", plain)


def looks_like_groups(cells: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether a column's values are many, repeat, and go with one label each, as patients' names do."""
    seen: dict[str, set[str]] = {}
    for cell, label in zip(cells, labels, strict=True):
        if group_key(cell) not in NO_GROUP:
            seen.setdefault(group_key(cell), set()).add(label)
    of_one_label = sum(len(found) == 1 for found in seen.values())
    return FEWEST_GROUPS <= len(seen) <= REPEATING * len(cells) and of_one_label >= ONE_LABEL * len(seen)


def read_groups(columns: Mapping[str, Sequence[str]], own: Sequence[str], place: str) -> tuple[list[str], list[str]]:
    """The group of each row, and what is to be said. `columns` are the cells by column, `own` the rows' own names.

    A row without a group is a group of its own. Of several columns the coarsest is taken, in which every group of the
    others lies wholly. Raises DataError where there is none.
    """
    if not columns:
        return list(own), []
    keys = {
        name: [group_key(cell) if group_key(cell) not in NO_GROUP else "" for cell in cells]
        for name, cells in columns.items()
    }
    name = coarsest(keys, place)
    notes = []
    if len(columns) > 1:
        others = ", ".join(repr(other) for other in columns if other != name)
        notes.append(f"{place}: {name!r} is taken as the group; {others} only tell apart what lies inside it.")
    without = sum(not key for key in keys[name])
    if 0 < without < len(own):
        notes.append(f"{place}: {without} of {len(own)} rows have no {name!r}; each is a group of its own.")
    first: dict[str, str] = {}
    for key, cell in zip(keys[name], columns[name], strict=True):
        first.setdefault(key, cell.strip())
    written = {cell.strip() for key, cell in zip(keys[name], columns[name], strict=True) if key}
    if len(written) > len(set(keys[name]) - {""}):
        notes.append(f"{place}: names in {name!r} that differ only by case, blanks or '.0' are taken as one group.")
    return [first[key] if key else row for key, row in zip(keys[name], own, strict=True)], notes


def coarsest(keys: Mapping[str, Sequence[str]], place: str) -> str:
    """The column in whose groups the groups of all others lie. Raises DataError where there is none."""
    for name, outer in keys.items():
        if all(lies_in(inner, outer) for other, inner in keys.items() if other != name):
            return name
    raise DataError(
        f"{place} has several columns that may mean group_id: {', '.join(map(repr, keys))}, and the groups of one do "
        "not lie inside those of another. Keep the one whose images must stay on one side of a split (the patient)."
    )


def lies_in(inner: Sequence[str], outer: Sequence[str]) -> bool:
    """Whether rows of one inner group are always of one outer group."""
    seen: dict[str, str] = {}
    return all(not one or seen.setdefault(one, other) == other for one, other in zip(inner, outer, strict=True))
