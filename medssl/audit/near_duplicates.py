"""Pictures that are there twice: equal, nearly equal, or mirrored and turned copies of one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

from medssl.audit.fingerprint import HASH_MARGIN, HASH_SIDE, THUMBNAIL, Fingerprint

NEAR_BITS = 40 / 256  # the share that may differ
NEAR_CORRELATION = 0.97  # of two thumbnails without the data set's mean thumbnail
FINE_CORRELATION = 0.95  # of what is left of two thumbnails when a 5-px mean is taken off
FINE_CLIP = 6  # grey levels: the outline of a retina or a skull must not outweigh all else
POSE_MARGIN = 0.2  # of fine correlation: a plain disc fits in every pose, a copy in one, or two where it is symmetric
# With fewer images their mean is mostly the two images that are compared.
MEAN_FROM = 10
BLOCK = 512
# What can be done to squares [N, S, S] besides leaving them as they are.
TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored left-right": lambda squares: squares[:, :, ::-1],
    "mirrored top-bottom": lambda squares: squares[:, ::-1],
    "turned by 180 degrees": lambda squares: squares[:, ::-1, ::-1],
    "turned by 90 degrees": lambda squares: np.rot90(squares, 1, (1, 2)),
    "turned by 270 degrees": lambda squares: np.rot90(squares, 3, (1, 2)),
    "mirrored on the diagonal": lambda squares: squares.transpose(0, 2, 1),
    "mirrored on the other diagonal": lambda squares: np.rot90(squares, 2, (1, 2)).transpose(0, 2, 1),
}


class Match(NamedTuple):
    """Two indices of fingerprints, how similar they are (1: the same), and the turn that makes the second the first."""

    one: int
    two: int
    similarity: float
    turn: str = ""


def exact_pairs(fingerprints: list[Fingerprint]) -> list[Match]:
    """Equal pictures: each later one with the first of its kind."""
    first: dict[str, int] = {}
    pairs = []
    for index, item in enumerate(fingerprints):
        if item.id in first:
            pairs.append(Match(first[item.id], index, 1.0))
        first.setdefault(item.id, index)
    return pairs


def distinct(fingerprints: list[Fingerprint]) -> np.ndarray:
    """The index of the first look of each picture, ascending: of equal pictures only the first is compared."""
    first = {item.id: index for index, item in reversed(list(enumerate(fingerprints)))}
    return np.array(sorted(first.values()), dtype=int)


def near_pairs(fingerprints: list[Fingerprint]) -> list[Match]:
    """Nearly equal pictures; the similarity is the correlation of their thumbnails.

    Hashes that agree are confirmed by two correlations of thumbnails: after the data set's mean thumbnail is taken off
    (retinas or slices of different patients share the layout that the mean holds: raw correlation up to 0.99), and of
    their fine detail (a rare layout shared by two patients is not in the mean). A re-saved copy passes both.
    """
    kept = distinct(fingerprints)
    if len(kept) < 2:
        return []
    bits = np.stack([fingerprints[index].bits for index in kept])
    squares = np.stack([fingerprints[index].thumbnail for index in kept]).reshape(-1, THUMBNAIL, THUMBNAIL)
    details = layouts_and_details(squares, squares)
    return [Match(int(kept[one]), int(kept[two]), r) for one, two, r in confirmed(bits, bits, details, details)]


def turned_pairs(fingerprints: list[Fingerprint], upright: list[Match]) -> list[Match]:
    """Mirrored or turned copies: as near pairs, with the second picture's thumbnail in each of the other seven poses.

    Named once, by the pose that fits best, which has to fit better than the usual (median) of all eight. Those that
    are near as they are (`upright`) are left out.
    """
    kept = distinct(fingerprints)
    if len(kept) < 2:
        return []
    squares = np.stack([fingerprints[index].thumbnail for index in kept]).reshape(-1, THUMBNAIL, THUMBNAIL)
    bits, details = thumbnail_bits(squares), layouts_and_details(squares, squares)
    known = {(match.one, match.two) for match in upright}
    best: dict[tuple[int, int], Match] = {}
    for name, turn in TURNS.items():
        turned = np.ascontiguousarray(turn(squares))
        theirs = layouts_and_details(turned, squares)
        for one, two, similarity in confirmed(bits, thumbnail_bits(turned), details, theirs):
            pair = (int(kept[one]), int(kept[two]))
            better = pair not in best or best[pair].similarity < similarity
            if better and pair not in known and one_pose_fits(details[1][one], details[1][two]):
                best[pair] = Match(*pair, similarity, name)
    return [best[pair] for pair in sorted(best)]


def one_pose_fits(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether the fine detail [P] of two thumbnails fits in one pose clearly better than in the usual one of eight."""
    square = two.reshape(1, THUMBNAIL, THUMBNAIL)
    fits = [one @ two, *(one @ turn(square).ravel() for turn in TURNS.values())]
    return bool(max(fits) - np.median(fits) >= POSE_MARGIN)


def thumbnail_bits(squares: np.ndarray) -> np.ndarray:
    """Difference hashes [N, 240] bool of thumbnails [N, 32, 32], halved first."""
    small = squares.reshape(len(squares), HASH_SIDE, 2, HASH_SIDE, 2).mean(axis=(2, 4))
    return (small[:, :, 1:] - small[:, :, :-1] > HASH_MARGIN).reshape(len(squares), -1)


def layouts_and_details(squares: np.ndarray, everything: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of thumbnails [N, 32, 32]: what differs from the mean of `everything`, and fine detail, as unit rows [N, P]."""
    count = len(squares)
    detail = np.clip(squares - uniform_filter(squares, (0, 5, 5)), -FINE_CLIP, FINE_CLIP)
    mean = everything.mean(axis=0) if len(everything) >= MEAN_FROM else 0
    return unit((squares - mean).reshape(count, -1)), unit(detail.reshape(count, -1))


def confirmed(
    bits: np.ndarray,
    other_bits: np.ndarray,
    details: tuple[np.ndarray, np.ndarray],
    other_details: tuple[np.ndarray, np.ndarray],
) -> list[tuple[int, int, float]]:
    """(row, later row, correlation) where hashes [N, B], layouts and details [N, P] of one and of the other agree."""
    signs, others = (part.astype(np.float32) * 2 - 1 for part in (bits, other_bits))
    limit, found = bits.shape[1] * (1 - 2 * NEAR_BITS), []
    for start in range(0, len(signs), BLOCK):
        near = signs[start : start + BLOCK] @ others[start:].T >= limit
        for row, column in np.argwhere(np.triu(near, 1)):
            one, two = int(row) + start, int(column) + start
            coarse, fine = (float(mine[one] @ theirs[two]) for mine, theirs in zip(details, other_details, strict=True))
            if coarse >= NEAR_CORRELATION and fine >= FINE_CORRELATION:
                found.append((one, two, min(1.0, coarse)))
    return found


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows [N, P] centred and of length 1; a row without any structure stays 0, so that it is near to none."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-3)
