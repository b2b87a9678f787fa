"""One upload in one browser tab, and the way to stop what is computed for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import gradio as gr
from PIL import Image

from medssl.bundle.analyzer import Analysis
from medssl.explain.likeness import Likeness


class Stopped(Exception):
    """What was being computed is no longer wanted."""


@dataclass
class Visit:
    """One upload in one browser tab: its picture, what was chosen and found so far, and the name of what is running."""

    image: Image.Image
    group: str | None = None
    task: str = ""
    analysis: Analysis | None = None
    chosen: int | None = None
    likeness: Likeness | None = None
    running: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def run(self, name: str, progress: gr.Progress) -> Iterator[Callable[[float, str], None]]:
        """A run of that name: what is given, called with (fraction, text), shows progress, or raises Stopped."""
        self.stop = stop = threading.Event()
        self.running = name

        def tell(fraction: float, text: str) -> None:
            if stop.is_set():
                raise Stopped
            progress(fraction, desc=text)

        try:
            yield tell
        finally:
            if self.stop is stop:  # else another run has begun
                self.running = ""

    def end(self) -> str:
        """Make what runs end at its next step. Returns its name, empty where nothing ran."""
        self.stop.set()
        return self.running

    def forget(self) -> None:
        """Nothing is found any more."""
        self.analysis = self.chosen = self.likeness = None
