"""Check: files that cannot be read as images."""

from __future__ import annotations

from medssl.audit.findings import ERROR, finding, number
from medssl.audit.subject import IMAGES, Check, Outcome, Subject


def check_readable(subject: Subject) -> Outcome:
    """The files that cannot be read, each with the reason."""
    names = subject.dataset["file_name"][:]
    reasons = {row: item for row, item in enumerate(subject.decoded or ()) if isinstance(item, str)}
    unreadable = {"undecodable": [names[row] for row in reasons]}
    if not reasons:
        return Outcome(fields=unreadable)
    examples = [f"{names[row]}: {reason}" for row, reason in reasons.items()]
    text = f"{number(reasons, 'file')} cannot be read as an image; building leaves them out."
    return Outcome([finding("undecodable", ERROR, examples, text)], unreadable)


READABLE = Check("readable files", IMAGES, check_readable)
