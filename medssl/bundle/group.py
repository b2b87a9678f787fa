"""One answer for a patient or slide, or for each series: its class, its prediction set, which pictures decide, which
groups are like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
from datasets import Dataset

from medssl.bundle.analyzer import Answering
from medssl.bundle.group_rule import Grouped, GroupRule, group_similarity
from medssl.bundle.many import PictureRow, Tally
from medssl.data.groups import group_key
from medssl.errors import BundleError
from medssl.heads.head import Head, Prediction
from medssl.images.pictures import PictureEntry
from medssl.library.library import embedding_matrix

DECIDING = 3
SHOWN_GROUPS = 5


@dataclass(frozen=True)
class Decider:
    """A picture that decides: by how much the group's probability of its class falls where it is left out."""

    row: PictureRow
    effect: float

    def to_dict(self) -> dict:
        """File, number and effect in plain JSON types."""
        return {"number": self.row.number, **asdict(self.row.entry), "effect": self.effect}


@dataclass(frozen=True)
class SimilarGroup:
    """A group of the library's cases that is like the one asked about; `label` is None where its cases differ."""

    group_id: str
    label: str | None
    score: float
    images: int


@dataclass(frozen=True)
class GroupAnswer:
    """One answer: `prediction` of all pictures of `rows` together, of which those that could not be read say nothing.

    `series` is the one that they are of: empty for pictures of none, and for all pictures of a group that has an id.
    `familiar` pictures are counted, as a group has no threshold of its own.
    """

    series: str
    prediction: Prediction
    rows: tuple[PictureRow, ...]
    deciding: tuple[Decider, ...]
    similar: tuple[SimilarGroup, ...]

    def to_dict(self) -> dict:
        """The answer in plain JSON types, without its rows."""
        return {
            "series": self.series,
            "prediction": asdict(self.prediction),
            **counts(self.rows),
            "deciding": [decider.to_dict() for decider in self.deciding],
            "similar_groups": [asdict(group) for group in self.similar],
        }


@dataclass(frozen=True)
class GroupAnalysis:
    """What is known of pictures that were asked about together, with a row for each.

    `answers` holds one answer; where the pictures are of several series and no id says that they are of one group, one
    a series, pictures without a series together as one more (see `answered_together`). Those of which no picture could
    be read have none, and a sentence in `unanswered`. `rule` says how answers are made.
    """

    group_id: str
    task: str
    rows: tuple[PictureRow, ...]
    answers: tuple[GroupAnswer, ...]
    rule: str
    notes: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()

    @property
    def answer(self) -> GroupAnswer:
        """The one answer. Raises BundleError where there is one for each of several series."""
        if len(self.answers) > 1:
            raise BundleError(
                f"The pictures are of {len(self.answers)} series, each with an answer of its own, see `answers`. Where "
                "all are of one patient or slide, give its id as `group_id` for one answer of all."
            )
        return self.answers[0]

    @property
    def prediction(self) -> Prediction:
        """That of the one answer. Raises BundleError where there are several."""
        return self.answer.prediction

    @property
    def deciding(self) -> tuple[Decider, ...]:
        """The pictures that decide the one answer. Raises BundleError where there are several."""
        return self.answer.deciding

    @property
    def similar(self) -> tuple[SimilarGroup, ...]:
        """The groups most like that of the one answer. Raises BundleError where there are several."""
        return self.answer.similar

    def to_dict(self) -> dict:
        """The analysis in plain JSON types; the fields of the one answer are None or empty where there are several."""
        single = self.answers[0].to_dict() if len(self.answers) == 1 else {}
        return {
            "task": self.task,
            "group_id": self.group_id,
            "prediction": single.get("prediction"),
            **counts(self.rows),
            "rule": self.rule,
            "answers": [answer.to_dict() for answer in self.answers],
            "rows": [row.to_dict() for row in self.rows],
            "deciding": single.get("deciding", []),
            "similar_groups": single.get("similar_groups", []),
            "notes": [*self.notes, *self.unanswered],
        }


def counts(rows: Sequence[PictureRow]) -> dict[str, int]:
    """How many pictures an answer is of, how many could not be read, and how many are unfamiliar."""
    tally = Tally.of(rows)
    read = tally.pictures - tally.unreadable
    return {"images": read, "unreadable": tally.unreadable, "unfamiliar": tally.unfamiliar}


def answered_together(entries: Sequence[PictureEntry], group_id: str = "") -> dict[str, list[int]]:
    """The numbers (from 0) of the pictures that get one answer, by their series, "" for those of none.

    All get one where a group's id says that they are of one patient or slide.
    """
    together: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        together.setdefault("" if group_id else entry.series, []).append(number)
    return together


def series_title(series: str) -> str:
    """What pictures of a series, or of none, are called."""
    return series or "pictures without a series"


def answer_group(
    group_id: str, bundle: Answering, rule: GroupRule, rows: Sequence[PictureRow], notes: Sequence[str] = ()
) -> GroupAnalysis:
    """The answer of a group's rows by a rule, or one for each of their series (see `GroupAnalysis`).

    Raises BundleError where no picture could be read.
    """
    if not any(row.prediction for row in rows):
        why = rows[0].error if rows else "There is no image in it."
        raise BundleError(f"No picture of group {group_id!r} could be read. The first: {why}")
    answers, unanswered = [], []
    for series, numbers in answered_together([row.entry for row in rows], group_id).items():
        members = [rows[number] for number in numbers]
        if any(row.prediction for row in members):
            answers.append(answer_series(series, group_id, bundle, rule, members))
        else:
            unanswered.append(f"Nothing of {series_title(series)} could be read. The first: {members[0].error}")
    name, sentence = bundle.task.name, rule.sentence()
    return GroupAnalysis(group_id, name, tuple(rows), tuple(answers), sentence, tuple(notes), tuple(unanswered))


def answer_series(
    series: str, group_id: str, bundle: Answering, rule: GroupRule, rows: Sequence[PictureRow]
) -> GroupAnswer:
    """One answer of rows by a rule, at least one of which was read."""
    answered = [row for row in rows if row.prediction]
    probabilities = np.array([list(row.prediction.probabilities.values()) for row in answered], np.float64)
    together = rule.probabilities(probabilities, Grouped.of(["group"] * len(answered)))
    return GroupAnswer(
        series,
        group_prediction(bundle.head, rule, together, answered),
        tuple(rows),
        deciding(rule, probabilities, together[0], answered),
        similar_groups(group_id, np.stack([row.embedding for row in answered]), bundle.known, rule),
    )


def group_prediction(head: Head, rule: GroupRule, probabilities: np.ndarray, rows: Sequence[PictureRow]) -> Prediction:
    """The prediction of probabilities `[1, C]`, with its set at the group's level and its pictures' familiarity."""
    label = head.labels[int(probabilities[0].argmax())]
    members = rule.thresholds.members(probabilities)[0]
    known = [row.prediction.familiarity for row in rows if row.prediction.familiarity is not None]
    flags = [row.prediction.familiar for row in rows]
    return Prediction(
        label,
        float(probabilities.max()),
        dict(zip(head.labels, probabilities[0].tolist(), strict=True)),
        [name for name, inside in zip(head.labels, members, strict=True) if inside],
        familiarity=float(np.mean(known)) if known else None,
        familiar=None if None in flags else sum(flags) * 2 >= len(flags),
    )


def deciding(
    rule: GroupRule, probabilities: np.ndarray, together: np.ndarray, rows: Sequence[PictureRow]
) -> tuple[Decider, ...]:
    """The pictures without which the group's class would be least probable, first the one that moves it most."""
    if len(rows) < 2:
        return ()
    label = int(together.argmax())
    effects = together[label] - rule.without_each(probabilities)[:, label]
    best = np.argsort(-effects, kind="stable")[:DECIDING]
    return tuple(Decider(rows[at], float(effects[at])) for at in best if effects[at] > 0)


def similar_groups(group_id: str, embeddings: np.ndarray, cases: Dataset, rule: GroupRule) -> tuple[SimilarGroup, ...]:
    """The groups of cases most like pictures with these embeddings `[N, D]`, best first; never the group itself."""
    names, labels = np.asarray(cases["group_id"][:]).astype(str), np.asarray(cases["label"][:])
    stored = Grouped.of(names)
    own, pure = stored.labels(labels)
    asked = Grouped.of(["group"] * len(embeddings))
    scores = group_similarity(embeddings, asked, embedding_matrix(cases), stored, rule.similarity)[0]
    key, order = group_key(group_id), np.argsort(-scores, kind="stable")
    order = list(islice((at for at in order if group_key(stored.names[at]) != key), SHOWN_GROUPS))
    sizes = np.bincount(stored.member)
    title = cases.features["label"].names
    return tuple(
        SimilarGroup(str(stored.names[at]), title[own[at]] if pure[at] else None, float(scores[at]), int(sizes[at]))
        for at in order
    )
