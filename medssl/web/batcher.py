"""Pictures that wait for the model at the same time are encoded in one forward, by whoever gets the model first."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medssl.bundle.analyzer import Answering, PictureEncodings


@dataclass(frozen=True, eq=False)
class Question:
    """A picture that waits to be encoded as a bundle needs it: its `frame` is uint8 `[h, w, 3]`."""

    encodings: PictureEncodings
    bundle: Answering
    key: tuple
    frame: np.ndarray

    @property
    def answered(self) -> bool:
        """Whether it was encoded meanwhile."""
        return self.encodings.holds(self.bundle)


class Batcher:
    """What waits to be encoded. There is no worker and no pause: one that comes alone is encoded at once, alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Question] = []

    def ask(self, encodings: PictureEncodings, bundles: Sequence[Answering]) -> list[Question]:
        """Let a picture wait for what these bundles need of it and is not there: a question for each forward."""
        asked: dict[tuple, Question] = {}
        for bundle in bundles:
            key = PictureEncodings.key_of(bundle)
            if key not in asked and not encodings.holds(bundle):
                frame = bundle.head.preprocess.resize(encodings.picture.image)
                asked[key] = Question(encodings, bundle, key, frame)
        with self._lock:
            self._waiting += asked.values()
        return list(asked.values())

    def answer(self, questions: Sequence[Question]) -> None:
        """Encode what of these is not encoded yet, each with others that wait for the same; the model must be held.

        A forward that fails is this caller's error alone: the others then try for themselves.
        """
        for question in questions:
            if question.answered:
                continue
            together = self._take(question)
            encoding = question.bundle.encode_frames(np.stack([one.frame for one in together]))
            for place, one in enumerate(together):
                one.encodings.put(one.bundle, encoding if len(together) == 1 else encoding.single(place))

    def leave(self, questions: Sequence[Question]) -> None:
        """Nobody waits for these any more."""
        with self._lock:
            self._waiting = [one for one in self._waiting if one not in questions]

    def _take(self, question: Question) -> list[Question]:
        """A question and those that wait for the same forward, as many as it takes, out of what waits."""
        most = question.bundle.backbone.batch_size(question.bundle.head.preprocess)
        with self._lock:
            alike = [one for one in self._waiting if one.key == question.key and one is not question]
            together = [question, *alike[: most - 1]]
            self._waiting = [one for one in self._waiting if one not in together]
        return together
