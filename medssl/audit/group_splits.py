"""Check: groups (patients, slides) on more than one side of the splits."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from medssl.audit.findings import ERROR, THUMBNAILS, Pair, finding, number
from medssl.audit.near_duplicates import unit
from medssl.audit.subject import IMAGES, Check, Outcome, Subject


def check_groups(subject: Subject) -> Outcome:
    """Groups that stand in more than one split; of each the two most similar images of different splits."""
    splits, files, rows = subject.splits, subject.files, subject.rows
    where = defaultdict(list)
    for index, group in enumerate(subject.groups.tolist()):
        where[group].append(index)
    crossing, pairs = [], []
    for group, members in where.items():
        sides = splits[members]
        if len(set(sides)) < 2:
            continue
        crossing.append(f"{group}: {', '.join(sorted(name or 'none' for name in set(sides)))}")
        thumbnails = unit(np.stack([subject.fingerprints[index].thumbnail for index in members]))
        similar = np.where(sides[:, None] != sides[None], thumbnails @ thumbnails.T, -np.inf)
        one, two = np.unravel_index(similar.argmax(), similar.shape)
        first, second = sorted((members[one], members[two]))
        similarity = min(1.0, float(similar[one, two]))
        pairs.append(Pair([rows[first], rows[second]], [files[first], files[second]], similarity, THUMBNAILS))
    text = f"{number(crossing, 'group')} (patient or slide) in several splits: a leak, test figures are too good."
    return Outcome([finding("group across splits", ERROR, crossing, text, pairs)] if crossing else [])


GROUP_SPLITS = Check("groups across splits", IMAGES, check_groups)
