"""Many pictures through one bundle: decoded one at a time, encoded in batches, a row for each."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TextIO

import numpy as np
import torch

from medssl.bundle.analyzer import Answering
from medssl.errors import ImageError
from medssl.heads.head import Prediction
from medssl.images.picture import Picture
from medssl.images.pictures import PictureEntry, Progress
from medssl.library.library import Case
from medssl.text import spreadsheet_cell

ROW_COLUMNS = (
    *("file", "frame", "frames", "series", "label", "probability", "prediction_set", "familiarity", "familiar"),
    *("case_id", "case_label", "case_score", "case_group", "error"),
)


@dataclass(frozen=True)
class PictureRow:
    """What is said of one of many pictures; `error` says why nothing is.

    `nearest` is the most similar case, without its picture. `number` is the picture's place in what was given.
    """

    number: int
    entry: PictureEntry
    prediction: Prediction | None = None
    nearest: Case | None = None
    error: str = ""
    id: str = ""
    embedding: np.ndarray | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict:
        """The row in plain JSON types, see ROW_COLUMNS; what is not known is None."""
        prediction = asdict(self.prediction) if self.prediction else {}
        prediction.pop("probabilities", None)
        case = {} if self.nearest is None else self.nearest
        known = {
            **asdict(self.entry),
            **prediction,
            **({f"case_{name}": getattr(case, name) for name in ("id", "label", "score")} if case else {}),
            **({"case_group": case.group_id} if case else {}),
            "error": self.error,
        }
        return {name: known.get(name) for name in ROW_COLUMNS}


@dataclass(frozen=True)
class Tally:
    """How many pictures there are, and how many of them could not be read, are unfamiliar, or not sure of one class."""

    pictures: int
    unreadable: int
    unfamiliar: int
    unsure: int

    @classmethod
    def of(cls, rows: Sequence[PictureRow]) -> Tally:
        """That of some rows."""
        found = [row.prediction for row in rows if row.prediction]
        unfamiliar = sum(one.familiar is False for one in found)
        return cls(len(rows), len(rows) - len(found), unfamiliar, sum(len(one.prediction_set) != 1 for one in found))


def by_need(rows: Sequence[PictureRow]) -> list[PictureRow]:
    """What needs a look first: what could not be read, then unfamiliar pictures, then wide sets, then the less sure."""

    def need(row: PictureRow) -> tuple:
        if row.prediction is None:
            return (0, 0, 0.0, row.number)
        found = row.prediction
        return (2 if found.familiar is not False else 1, -len(found.prediction_set), found.probability, row.number)

    return sorted(rows, key=need)


def flat_row(row: dict) -> dict:
    """A row (see `PictureRow.to_dict`) for a CSV table: the prediction set in one cell, nothing that computes."""
    values = {**row, "prediction_set": " ".join(row["prediction_set"] or ())}
    return {name: spreadsheet_cell(values[name]) for name in ROW_COLUMNS}


def write_table(rows: Iterable[dict], out: TextIO) -> None:
    """Rows (see `PictureRow.to_dict`) as a CSV table."""
    table = csv.DictWriter(out, ROW_COLUMNS)
    table.writeheader()
    table.writerows(map(flat_row, rows))


@dataclass(frozen=True)
class Batch:
    """Pictures that were decoded: `frames` uint8 `[B, h, w, 3]` in the model's frame, and rows without an answer.

    `places [B]` are the rows that the frames belong to; the other rows hold an error.
    """

    rows: tuple[PictureRow, ...]
    places: tuple[int, ...]
    frames: np.ndarray


def batches(
    bundle: Answering, pictures: Sequence[Picture], progress: Progress | None = None, first: int = 0
) -> Iterator[Batch]:
    """The pictures (which have `entries`) decoded one at a time, in batches as large as the backbone takes.

    `first` is the number of the first one, 0 for all.
    """
    preprocess, count = bundle.head.preprocess, len(pictures)
    size = bundle.backbone.batch_size(preprocess)
    for start in range(first, count, size):
        rows, places, frames = [], [], []
        for number in range(start, min(count, start + size)):
            if progress:
                progress(number / count, f"Picture {number + 1} of {count}")
            row = PictureRow(number, pictures.entries[number])
            try:
                picture = pictures[number]
            except ImageError as error:
                rows.append(replace(row, error=str(error)))
                continue
            places.append(len(rows))
            rows.append(replace(row, id=picture.id))
            frames.append(preprocess.resize(picture.image))
        yield Batch(tuple(rows), tuple(places), np.stack(frames) if frames else np.empty((0, *preprocess.size, 3)))


def score(bundle: Answering, batch: Batch, exclude_group: str | None = None) -> list[PictureRow]:
    """The rows of a batch with their answers: one forward for all."""
    rows = list(batch.rows)
    if not batch.places:
        return rows
    thresholds = bundle.head.thresholds
    embeddings, probabilities = bundle.classify_frames(batch.frames)
    predictions = bundle.head.predictions(torch.from_numpy(probabilities))
    ids = [rows[place].id for place in batch.places]
    library = bundle.library
    known = library.plain.search_batch(embeddings, thresholds.familiarity_neighbors, ids, exclude_group)
    cases = known if library.plain is library else library.search_batch(embeddings, 1, ids, exclude_group)
    rows_of_batch = zip(batch.places, predictions, embeddings, known, cases, strict=True)
    for place, prediction, embedding, familiar_cases, near in rows_of_batch:
        familiarity = float(np.mean([case.score for case in familiar_cases])) if familiar_cases else None
        familiar = None if familiarity is None else thresholds.familiar(familiarity)
        answer = replace(prediction, familiarity=familiarity, familiar=familiar)
        nearest = near[0] if near else None
        rows[place] = replace(rows[place], prediction=answer, nearest=nearest, embedding=embedding)
    return rows
