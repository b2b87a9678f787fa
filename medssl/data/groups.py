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

    Of several columns the coarsest is taken, in which every group of the others lies wholly; a row without it has the
    group of the next one, and without any it is a group of its own. Raises DataError where there is no coarsest.
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
    without = [row for row, key in enumerate(keys[name]) if not key]
    finer = {other: [columns[other][row] for row in without] for other in columns if other != name}
    alone, about_finer = own_or_finer(finer, [own[row] for row in without], place, name)
    if 0 < len(without) < len(own):
        tied = f"they are grouped by {', '.join(map(repr, finer))}, else " if finer else ""
        notes.append(f"{place}: {len(without)} of {len(own)} rows have no {name!r}; {tied}each is a group of its own.")
    first: dict[str, str] = {}
    for key, cell in zip(keys[name], columns[name], strict=True):
        first.setdefault(key, cell.strip())
    written = {cell.strip() for key, cell in zip(keys[name], columns[name], strict=True) if key}
    if len(written) > len(set(keys[name]) - {""}):
        notes.append(f"{place}: names in {name!r} that differ only by case, blanks or '.0' are taken as one group.")
    found = [first.get(key, "") for key in keys[name]]
    for row, group in zip(without, alone, strict=True):
        found[row] = group
    return found, [*notes, *about_finer]


def own_or_finer(
    columns: Mapping[str, Sequence[str]], own: Sequence[str], place: str, without: str
) -> tuple[list[str], list[str]]:
    """The groups of rows that lack the column `without`, by the other columns, and what is to be said of these.

    They are named so that no group of that column is called alike.
    """
    if not columns or not own:
        return list(own), []
    groups, notes = read_groups(columns, own, place)
    return [group if group == row else f"{group} (no {without})" for group, row in zip(groups, own, strict=True)], notes


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
