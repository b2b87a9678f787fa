"""Pictures that are masks of others: x_mask.png beside x.png, two-valued."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from medssl.errors import ImageError
from medssl.images.read import read_image

MASK_NAME = re.compile(
    r"^(?P<base>.+?)[ _.\-]*(mask|masks|seg|segmentation|annotation|gt|groundtruth|roi|label)([ _.\-]*\d+)?$", re.I
)
PREFIXED = re.compile(r"^(mask|seg|gt)[ _.\-]+(?P<base>.+)$", re.I)
# A JPEG's ringing lies this near to black and white, and a few pixels beyond.
NEAR, SHARE = 16, 0.99


def base_of(stem: str) -> str | None:
    """The name of the picture that this would be the mask of, None for a name that says no mask."""
    match = MASK_NAME.match(stem) or PREFIXED.match(stem)
    return match["base"] if match else None


def is_two_valued(path: str) -> bool:
    """Whether a file's grey values are two at most, but for the traces of a lossy compression."""
    try:
        return two_values(np.asarray(read_image(path).convert("L")))
    except ImageError:
        return False


def two_values(gray: np.ndarray) -> bool:
    """Whether grey values `[H, W]` are two at most, but for the traces of a lossy compression."""
    low, high = int(gray.min()), int(gray.max())
    near = (gray <= low + NEAR) | (gray >= high - NEAR)
    return bool(near.mean() >= SHARE)


def without_masks(rows: Sequence[dict]) -> tuple[list[dict], list[str]]:
    """The rows that are no masks of other rows, and what is to be said of those that are or look so."""
    present = {(str(path.parent), path.stem) for path in (PurePosixPath(row["file_name"]) for row in rows)}
    kept, masks, doubtful = [], [], []
    for row in rows:
        path = PurePosixPath(row["file_name"])
        base = base_of(path.stem)
        if base is None or (str(path.parent), base) not in present:
            kept.append(row)
        elif is_two_valued(row["image"]["path"]):
            masks.append(row["file_name"])
        else:
            doubtful.append(row["file_name"])
            kept.append(row)
    notes = []
    if masks:
        notes.append(f"Left out: {len(masks)} two-valued pictures that are masks of others by their name ({masks[0]}).")
    if doubtful:
        notes.append(f"Kept: {len(doubtful)} pictures named like masks ({doubtful[0]}) that hold more than two values.")
    return kept, notes
