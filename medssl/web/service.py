"""What is served: the loaded bundles, and how requests get at them without standing in each other's way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

from medssl.bundle.analyzer import PictureEncodings
from medssl.bundle.bundle import Bundle
from medssl.errors import BundleError
from medssl.web.batcher import Batcher
from medssl.web.turns import Turns

NONE_LOADED = "No bundle is loaded; start the app with one."
# How many requests are at work at once, in three lines of Gradio's queue, so that heatmaps hold up no classes.
# Classes and cases: one with the model, the others reading their files (so that a file that takes its whole deadline
# to be refused holds up nobody else) or waiting to be encoded together.
AT_ONCE = 8
# Heatmaps and reports by the API, and what the page asks of an analyzed picture.
HEAVY_AT_ONCE = 4
# The page's analyses: class first, then a heatmap. Their pictures are held in any case; each takes a thread of the 40.
ANALYSES_AT_ONCE = 16
MODEL = {"concurrency_id": "model", "concurrency_limit": AT_ONCE}
HEAVY = {"concurrency_id": "heavy", "concurrency_limit": HEAVY_AT_ONCE}
ANALYSES = {"concurrency_id": "analyses", "concurrency_limit": ANALYSES_AT_ONCE}
# Many pictures take minutes, in which single ones must not wait for a place.
MANY = {"concurrency_id": "many", "concurrency_limit": 2}
QUICK_STEPS = 2  # of an analysis: class and cases
Step = TypeVar("Step")


class Service:
    """The bundles of an app by task name. Model work takes turns, see `Turns`; encodings share forwards, see `Batcher`.

    `folders` are where those lie that may be added to; none by default.
    """

    def __init__(self, bundles: Mapping[str, Bundle], folders: Mapping[str, Path] | None = None) -> None:
        self.bundles, self.folders = dict(bundles), dict(folders or {})
        self._turns, self._batcher = Turns(), Batcher()

    def bundle(self, name: object) -> Bundle:
        """The bundle of that task. Raises BundleError naming the loaded ones."""
        if isinstance(name, str) and name in self.bundles:
            return self.bundles[name]
        loaded = f"Loaded tasks: {', '.join(self.bundles)}." if self.bundles else NONE_LOADED
        raise BundleError(f"There is no task {name!r} here. {loaded}")

    def folder(self, name: str) -> Path:
        """The folder of a bundle that may be added to. Raises BundleError where it may not."""
        if name not in self.folders:
            raise BundleError(f"The cases of {name!r} cannot be added to here: the page was not started with --curate.")
        return self.folders[name]

    def turn(self, slow: bool = False) -> AbstractContextManager[None]:
        """A context in which nobody else works with the model; `slow` work comes after quick and gives way to it.

        Raises Stopped when nobody waits for it any more.
        """
        return self._turns.turn(slow)

    @contextmanager
    def encoded(self, encodings: PictureEncodings, bundles: Sequence[Bundle]) -> Iterator[None]:
        """A quick turn in which a picture is encoded for these bundles: in one forward with others that wait for it."""
        asked = self._batcher.ask(encodings, bundles)
        try:
            with self.turn():
                self._batcher.answer(asked)
                yield
        finally:
            self._batcher.leave(asked)

    def in_turn(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The steps of an analysis, each computed in a turn of its own, so that a generator left alone holds up nobody.

        All after class and cases are slow.
        """
        number = 0
        while True:
            with self.turn(slow=number >= QUICK_STEPS):
                try:
                    step = next(steps)
                except StopIteration:
                    return
            number += 1
            yield step
