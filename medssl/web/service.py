"""What is served: the loaded bundles, and how requests get at them without standing in each other's way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from medssl.bundle.bundle import Bundle
from medssl.errors import BundleError
from medssl.web.wanted import check_wanted

NONE_LOADED = "No bundle is loaded; start the app with one."
# How many requests are at work at once: one with the model, the others reading their files or waiting for it, so that
# a file that takes its whole deadline to be refused holds up nobody else.
AT_ONCE = 4
MODEL = {"concurrency_id": "model", "concurrency_limit": AT_ONCE}
LOOK_EVERY = 0.2
Step = TypeVar("Step")


class Service:
    """The bundles of an app by task name. Model work takes turns: two at once are slower than one after another."""

    def __init__(self, bundles: Mapping[str, Bundle]) -> None:
        self.bundles = bundles
        self._model = threading.Lock()

    def bundle(self, name: object) -> Bundle:
        """The bundle of that task. Raises BundleError naming the loaded ones."""
        if isinstance(name, str) and name in self.bundles:
            return self.bundles[name]
        loaded = f"Loaded tasks: {', '.join(self.bundles)}." if self.bundles else NONE_LOADED
        raise BundleError(f"There is no task {name!r} here. {loaded}")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A context in which nobody else works with the model. Raises Stopped when nobody waits for it any more."""
        while not self._model.acquire(timeout=LOOK_EVERY):
            check_wanted()
        try:
            check_wanted()
            yield
        finally:
            self._model.release()

    def in_turn(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The same steps, each computed in a turn of its own, so that a generator left alone holds up nobody."""
        while True:
            with self.turn():
                try:
                    step = next(steps)
                except StopIteration:
                    return
            yield step


def backbone_name(bundle: Bundle) -> str:
    """The backbone's name or Hub id; of a folder only its own name, as where it lies is nobody's business."""
    name = str(bundle.head.backbone.get("id", "not stated"))
    return name if name.count("/") <= 1 and not name.startswith((".", "~", "/")) else Path(name).name
