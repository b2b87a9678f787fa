"""One upload in one browser tab, and the way to stop what is computed for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import gradio as gr
from PIL import Image

from medssl.bundle import Analysis


class Stopped(Exception):
    """The user pressed Stop while something was being computed."""


@dataclass
class Visit:
    """One upload in one browser tab: its picture, and what was found so far."""

    image: Image.Image
    group: str | None = None
    analysis: Analysis | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def begin(self, progress: gr.Progress) -> Callable[[float, str], None]:
        """Start a run: what it calls with (fraction, text) shows progress, and raises Stopped once it is to end."""
        self.stop = stop = threading.Event()

        def tell(fraction: float, text: str) -> None:
            if stop.is_set():
                raise Stopped
            progress(fraction, desc=text)

        return tell
