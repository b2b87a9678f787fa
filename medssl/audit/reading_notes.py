"""Check: what was not used of a table or folder, or was read under another name."""

from __future__ import annotations

from medssl.audit.findings import INFO, Finding
from medssl.audit.subject import TABLE, Check, Outcome, Subject
from medssl.data.notes import notes_of

KIND = "how the data was read"


def check_notes(subject: Subject) -> Outcome:
    """Every note on how the data set was read, as a finding of its own."""
    return Outcome([Finding(KIND, INFO, 1, note) for note in notes_of(subject.dataset)])


READING_NOTES = Check("reading notes", TABLE, check_notes)
