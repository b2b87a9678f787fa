"""The HTML of several pictures: what was uploaded, their table, and one answer for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from medssl.bundle.bundle import Bundle
from medssl.bundle.group import GroupAnalysis, answered_together, counts, series_title
from medssl.bundle.many import PictureRow, Tally
from medssl.report.report import shown_prediction
from medssl.web.render import html
from medssl.web.session import Visit
from medssl.web.uploaded import Uploaded

NOTES_SHOWN = 3
GROWING = '<div class="ms-growing"></div>'  # where progress stands while the table grows


def uploaded(many: Uploaded) -> str:
    """How many pictures there are, of how many files and series, and what is to be known of how they were read."""
    entries = many.pictures.entries
    notes = many.pictures.notes
    return html(
        "many_uploaded",
        count=len(entries),
        files=len({entry.file for entry in entries}),
        series=len({entry.series for entry in entries if entry.series}),
        notes=notes[:NOTES_SHOWN],
        more=len(notes) - NOTES_SHOWN,
    )


def chosen(visit: Visit) -> str:
    """Which of several pictures is shown."""
    entry = visit.many.pictures.entries[visit.number] if visit.many else None
    count = len(visit.many) if visit.many else 1
    return html("many_chosen", number=visit.number, count=count, entry=entry, notes=visit.picture.notes)


def counted(rows: Sequence[PictureRow], count: int) -> str:
    """How many of the pictures were looked at, and how many of these need a look, by why."""
    return html("many_counted", tally=Tally.of(rows), count=count)


def table(rows: Sequence[PictureRow]) -> str:
    """A row a picture, as they come."""
    return html("many_table", rows=rows)


def together(many: Uploaded, group: str) -> str:
    """What the button for one answer says: for all pictures, or for each of several series."""
    series = len(answered_together(many.pictures.entries, group.strip()))
    return f"One answer for each of {series} series" if series > 1 else f"One answer for all {len(many)}"


def answers(bundle: Bundle, analysis: GroupAnalysis) -> str:
    """A card an answer: class, set, the pictures that decide, groups like it, the rule; above several, why so many."""
    apart = len(analysis.answers) + len(analysis.unanswered) > 1
    cards = [
        html(
            "many_answer",
            task=bundle.task,
            analysis=analysis,
            answer=answer,
            title=series_title(answer.series) if apart else "",
            prediction=answer.prediction,
            **shown_prediction(answer.prediction, bundle.group_rule.thresholds),
            **counts(answer.rows),
        )
        for answer in analysis.answers
    ]
    return "".join([html("many_apart", analysis=analysis) if apart else "", *cards])
