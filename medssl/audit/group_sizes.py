"""Check: one group that is far larger than the others, as a word for "not known" makes it."""

from __future__ import annotations

import numpy as np

from medssl.audit.findings import WARNING, Finding
from medssl.audit.subject import TABLE, Check, Outcome, Subject

# From what share of all images, and from how many times the usual group, one is told.
SHARE, TIMES, FEWEST_GROUPS = 0.2, 10, 5


def check_group_sizes(subject: Subject) -> Outcome:
    """The largest group where it holds a fifth of all images and ten times as many as the median group."""
    names, counts = np.unique(subject.groups, return_counts=True)
    if len(names) < FEWEST_GROUPS or counts.max() < max(SHARE * counts.sum(), TIMES * np.median(counts)):
        return Outcome()
    name = str(names[counts.argmax()])
    text = (
        f"The group {name!r} holds {counts.max()} of {counts.sum()} images, the usual (median) group "
        f"{np.median(counts):g}: is it one patient, or a word for 'not known'? All its images lie on one side of a "
        "split."
    )
    return Outcome([Finding("very large group", WARNING, 1, text)])


GROUP_SIZES = Check("group sizes", TABLE, check_group_sizes)
