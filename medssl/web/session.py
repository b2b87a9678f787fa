"""One upload in one browser tab, and the way to stop what is computed for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import gradio as gr
from PIL import Image

from medssl.bundle.analyzer import Analysis, Analyzer, PictureEncodings
from medssl.bundle.bundle import Bundle
from medssl.explain.likeness import Likeness
from medssl.images.picture import Picture
from medssl.web.wanted import Stopped, check_wanted

ANALYSIS = "analysis"  # the name of the run that Analyze starts


@dataclass
class Visit:
    """One upload in one browser tab: its picture, what was chosen and found so far, and the name of what is running."""

    picture: Picture
    group: str | None = None
    task: str = ""
    analysis: Analysis | None = None
    chosen: int | None = None
    likeness: Likeness | None = None
    running: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    opened: dict[str, Analyzer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.encodings = PictureEncodings(self.picture)

    @property
    def image(self) -> Image.Image:
        """The picture's pixels."""
        return self.picture.image

    def analyzer(self, name: str, bundle: Bundle) -> Analyzer:
        """The picture opened for the bundle of a task: once, whatever is asked of it."""
        if name not in self.opened:
            self.opened[name] = Analyzer.open(bundle, self.encodings, self.group)
        return self.opened[name]

    @contextmanager
    def run(self, name: str, progress: gr.Progress) -> Iterator[Callable[[float, str], None]]:
        """A run of that name: what is given, called with (fraction, text), shows progress, or raises Stopped."""
        self.stop = stop = threading.Event()
        self.running = name

        def tell(fraction: float, text: str) -> None:
            if stop.is_set():
                raise Stopped
            check_wanted()
            progress(fraction, desc=text)

        try:
            yield tell
            if stop.is_set():  # pressed during the last step, after which nothing looks any more
                raise Stopped
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
