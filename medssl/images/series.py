"""DICOM series: which files belong together, in the order in which their slices lie, and what is missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from medssl.images.dicom import PIXELS, parse
from medssl.images.limits import DAMAGED

GAP = 1.5  # times the usual distance: more means that a slice is missing
SAME_PLACE = 0.01  # mm


@dataclass(frozen=True)
class Slice:
    """What a DICOM file says of where its picture belongs.

    `series` tells series (and sizes in one) apart, empty where it does not say; `direction` says how the slice lies and
    `place` how far along its normal, in mm, both None where it does not say. `pictures` is 0 for a report or structure.
    """

    series: tuple
    direction: tuple | None
    place: float | None
    number: float
    pictures: int


@dataclass(frozen=True)
class Series:
    """Files of one series in order, and what is to be known of them (plain sentences)."""

    files: tuple[str, ...]
    notes: tuple[str, ...] = ()


def numbers(dataset: Dataset, name: str, count: int) -> np.ndarray | None:
    """`count` finite numbers of an element, None where it does not hold them."""
    try:
        values = np.asarray(dataset.get(name), np.float64).ravel()
    except DAMAGED:
        return None
    return values if values.size == count and np.isfinite(values).all() else None


def read_slice(data: bytes) -> Slice | None:
    """Where the picture of a DICOM file belongs; None for a damaged one."""
    try:
        dataset = parse(data)
        frames = int(dataset.get("NumberOfFrames") or 1)
        pictures = frames if any(name in dataset for name in PIXELS) else 0
        series, size = str(dataset.get("SeriesInstanceUID") or ""), (dataset.get("Rows"), dataset.get("Columns"))
    except DAMAGED:
        return None
    directions, corner = numbers(dataset, "ImageOrientationPatient", 6), numbers(dataset, "ImagePositionPatient", 3)
    instance = numbers(dataset, "InstanceNumber", 1)
    place = None
    if directions is not None and corner is not None:
        place = float(np.cross(directions[:3], directions[3:]) @ corner)
    direction = None if directions is None else tuple((np.round(directions, 2) + 0.0).tolist())
    number = np.inf if instance is None else float(instance[0])
    return Slice((series, *size) if series else (), direction, place, number, pictures)


def stacked(slices: Mapping[str, Slice]) -> Series:
    """Parallel slices (by file name) in the order in which they lie; equal places by instance number, then by name."""
    places = {name: one.place for name, one in slices.items() if one.place is not None}
    files = tuple(sorted(places, key=lambda name: (round(places[name], 2), slices[name].number, name)))
    return Series(files, missing_slices([places[name] for name in files]))


def counted(slices: Mapping[str, Slice], why: str) -> Series:
    """Slices (by file name) by instance number, then by name; `why` says why not by where they lie."""
    return Series(tuple(sorted(slices, key=lambda name: (slices[name].number, name))), (why,))


def missing_slices(places: Sequence[float]) -> tuple[str, ...]:
    """A sentence a gap in ascending places in mm that is wider than one and a half times the usual distance."""
    gaps = np.diff(places)
    steps = gaps[gaps > SAME_PLACE]
    if len(steps) < 2:
        return ()
    usual = float(np.median(steps))
    return tuple(
        f"{round(gap / usual) - 1} missing between slice {at} and {at + 1} (counted from 0): they lie {gap:.1f} mm "
        f"apart, others {usual:.1f} mm"
        for at, gap in enumerate(gaps)
        if gap > GAP * usual
    )


def find_series(slices: Mapping[str, Slice]) -> list[Series]:
    """Single-frame DICOM files (by name) as the series that they say they belong to; a lone file is no series.

    Parallel slices of a series make one by themselves, so that a localizer stands apart; those that lie each in its own
    direction, or do not say how, make another.
    """
    together: dict[tuple, dict[str, Slice]] = defaultdict(dict)
    for name, one in slices.items():
        if one.pictures == 1 and one.series:
            together[one.series][name] = one
    return [series for members in together.values() for series in told_apart(members)]


def told_apart(members: Mapping[str, Slice]) -> list[Series]:
    """The stacks in the files of one series, then what else is in it."""
    parallel: dict[tuple, dict[str, Slice]] = defaultdict(dict)
    unsaid: dict[str, Slice] = {}
    lone: dict[str, Slice] = {}
    for name, one in members.items():
        (unsaid if one.place is None or one.direction is None else parallel[one.direction])[name] = one
    found = []
    for stack in parallel.values():
        if len(stack) > 1:
            found.append(stacked(stack))
        else:
            lone |= stack
    if len(lone) > 1:
        found.append(counted(lone, "its slices are not parallel; ordered by instance number"))
    if len(unsaid) > 1:
        found.append(counted(unsaid, "it does not say where each slice lies; ordered by instance number"))
    return found
