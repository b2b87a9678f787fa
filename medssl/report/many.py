"""Many pictures, and the answers for a patient, slide or series, as a report: the same kind of file as that of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime

import numpy as np

from medssl.bundle.analyzer import Progress, silent
from medssl.bundle.bundle import Bundle
from medssl.bundle.group import Decider, GroupAnalysis, GroupAnswer
from medssl.bundle.many import PictureRow, Tally, by_need
from medssl.errors import ImageError
from medssl.images.picture import Picture
from medssl.library.case_map import place_cases
from medssl.report.case_map import COLORS, HEIGHT, WIDTH, CaseMap, in_picture
from medssl.report.pictures import blend, jpeg_uri
from medssl.report.provenance import provenance
from medssl.report.report import (
    CASE_SIDE,
    HEATMAP_CAUTION,
    LIKENESS_CAUTION,
    OPACITY,
    TEMPLATES,
    Report,
    common_facts,
    part,
    shown_bundle,
    shown_prediction,
    utc_now,
)

# A table of more pictures is no longer read, and with their thumbnails the file would outgrow 2 MB.
MOST_ROWS, THUMBNAIL_SIDE = 200, 96
# Deciding pictures that are explained, shared by the answers: each takes as long as a heatmap does.
MOST_EXPLAINED = 12
# What names a file, a series or a visitor's patient: none of it enters a report.
NAMING = ("file", "series", "error", "group_id", "notes")


def compose_many_report(
    bundle: Bundle,
    rows: Sequence[PictureRow],
    pictures: Sequence[Picture],
    group: GroupAnalysis | None = None,
    progress: Progress | None = None,
    now: Callable[[], datetime] | None = None,
) -> Report:
    """The report of pictures that were analyzed (`Bundle.analyze_many`), and of the answers of a `group` of them.

    Pictures are numbered from 1 in the order of `pictures`, and decoded one at a time for their thumbnails; of an
    answer the deciding ones are explained. Nothing that names a file, a series or a patient enters it.
    """
    tell, source = progress or silent, provenance(bundle)
    created = (now or utc_now)().isoformat(timespec="minutes")
    answers = shown_answers(bundle, group.answers, pictures, part(tell, 0.0, 0.5)) if group else []
    shown = []
    for place, row in enumerate(by_need(rows)[:MOST_ROWS]):
        tell(0.5 + 0.5 * place / min(len(rows), MOST_ROWS), f"Picture {row.number + 1}")
        shown.append(shown_row(row, pictures))
    document = TEMPLATES.get_template("many.html.jinja").render(
        **shown_bundle(bundle, created, source),
        group=group,
        answers=answers,
        counts=counted(rows),
        rows=shown,
        map=shown_map(bundle, rows),
        heatmap_caution=HEATMAP_CAUTION,
        likeness_caution=LIKENESS_CAUTION,
    )
    return Report(document, many_facts(bundle, rows, group, created, source))


def counted(rows: Sequence[PictureRow]) -> dict:
    """How many pictures there are, could not be read, are unfamiliar, and have each class, the most frequent first."""
    tally = Tally.of(rows)
    return {
        "pictures": tally.pictures,
        "unreadable": tally.unreadable,
        "unfamiliar": tally.unfamiliar,
        "labels": dict(Counter(row.prediction.label for row in rows if row.prediction).most_common()),
    }


def shown_row(row: PictureRow, pictures: Sequence[Picture]) -> dict:
    """What the template takes of a picture; without a thumbnail where it cannot be read any more."""
    facts = {"number": row.number + 1, "prediction": row.prediction, "nearest": row.nearest}
    try:
        return {**facts, "picture": jpeg_uri(pictures[row.number].image, THUMBNAIL_SIDE)}
    except ImageError:
        return {**facts, "picture": None}


def shown_answers(
    bundle: Bundle, answers: Sequence[GroupAnswer], pictures: Sequence[Picture], tell: Progress
) -> list[dict]:
    """What the template takes of each answer; of its deciding pictures the first are explained."""
    most = MOST_EXPLAINED // len(answers)
    shown = []
    for place, answer in enumerate(answers):
        explained = answer.deciding[:most]
        steps = [(place + at / len(explained)) / len(answers) for at in range(len(explained))]
        width = 1 / (len(answers) * max(1, len(explained)))
        deciding = [
            shown_decider(bundle, answer, one, pictures, part(tell, start, start + width))
            for one, start in zip(explained, steps, strict=True)
        ]
        shown.append(
            {
                "answer": answer,
                "title": f"Series {place + 1} of {len(answers)}" if len(answers) > 1 else "",
                "pictures": spans([row.number + 1 for row in answer.rows]),
                **shown_prediction(answer.prediction, bundle.group_rule.thresholds),
                "deciding": deciding,
                "others": answer.deciding[most:],
            }
        )
    return shown


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers in words, neighbors taken together: "1 to 4, 7"."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in found)


def shown_decider(
    bundle: Bundle, answer: GroupAnswer, decider: Decider, pictures: Sequence[Picture], tell: Progress
) -> dict:
    """What the template takes of a deciding picture: itself, and the heatmap of the answer's class on it."""
    picture, prediction = pictures[decider.row.number], decider.row.prediction
    *_, analysis = bundle.open(picture).steps(answer.prediction.label, 1, progress=tell)
    explanation = analysis.explanation
    return {
        "number": decider.row.number + 1,
        "effect": decider.effect,
        "label": prediction.label,
        "probability": prediction.probability,
        "picture": jpeg_uri(picture.image, CASE_SIDE),
        "heatmap": explanation and jpeg_uri(blend(picture.image, explanation, OPACITY, CASE_SIDE), CASE_SIDE),
        "said": analysis.explained_by,
    }


def shown_map(bundle: Bundle, rows: Sequence[PictureRow]) -> dict | None:
    """The map of the cases with the pictures among them; None where the bundle has no map or no picture was read."""
    view = CaseMap.of(bundle)
    embeddings = [row.embedding for row in rows if row.embedding is not None]
    if not len(view.rows) or not embeddings:
        return None
    own = place_cases(bundle.cases, np.stack(embeddings), bundle.space)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "points": in_picture(view.points).tolist(),
        "own": in_picture(own).tolist(),
        "colorings": [{**asdict(one), "numbers": one.numbers.tolist()} for one in view.colorings()],
        "colors": COLORS,
    }


def many_facts(
    bundle: Bundle, rows: Sequence[PictureRow], group: GroupAnalysis | None, created: str, source: dict
) -> dict:
    """The report in plain JSON types, without pixels and names."""
    return {
        **common_facts(bundle, created, source),
        "task": bundle.task.name,
        "counts": counted(rows),
        "group": group and group_facts(group),
        "pictures": [nameless(row) for row in rows],
        "cautions": [HEATMAP_CAUTION, LIKENESS_CAUTION],
    }


def group_facts(group: GroupAnalysis) -> dict:
    """The answers of a group in plain JSON types by the numbers of their pictures alone."""
    answers = [
        {**answer_facts(answer.to_dict()), "pictures": [row.number + 1 for row in answer.rows]}
        for answer in group.answers
    ]
    return {**answer_facts(group.to_dict()), "answers": answers, "unanswered": len(group.unanswered)}


def answer_facts(answer: dict) -> dict:
    """What an answer in plain JSON types says without names."""
    deciding = [{"number": one["number"] + 1, "effect": one["effect"]} for one in answer["deciding"]]
    facts = {name: value for name, value in answer.items() if name not in (*NAMING, "rows")}
    return {**facts, "deciding": deciding}


def nameless(row: PictureRow) -> dict:
    """A row in plain JSON types by its number alone."""
    facts = {name: value for name, value in row.to_dict().items() if name not in NAMING}
    return {"number": row.number + 1, "read": not row.error, **facts}
