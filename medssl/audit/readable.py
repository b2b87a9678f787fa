"""Check: files that cannot be read as images."""

from __future__ import annotations

from medssl.audit.findings import ERROR, finding, number
from medssl.audit.subject import IMAGES, Check, Outcome, Subject


def check_readable(subject: Subject) -> Outcome:
    """The files that cannot be read, each with the reason."""
    names = subject.dataset["file_name"][:]
    broken = [row for row, item in enumerate(subject.decoded or ()) if isinstance(item, str)]
    unreadable = {"undecodable": [names[row] for row in broken]}
    if not broken:
        return Outcome(fields=unreadable)
    examples = [f"{names[row]}: {subject.decoded[row]}" for row in broken]
    text = f"{number(broken, 'file')} cannot be read as an image; building leaves them out."
    return Outcome([finding("undecodable", ERROR, examples, text)], unreadable)


READABLE = Check("readable files", IMAGES, check_readable)
