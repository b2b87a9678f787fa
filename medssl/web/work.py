"""One thing at a time that is computed for somebody, and the way to stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import gradio as gr

from medssl.web.turns import give_way
from medssl.web.wanted import Stopped, check_wanted

# Progress is sent this often at most, in seconds: each time the browser draws its page anew, and one that is busy with
# that takes a press of Stop late.
TOLD_EVERY = 0.5


@dataclass(kw_only=True)
class Work:
    """What runs are begun for; `running` is the name of the one that began last, empty where none runs.

    A run whose call was canceled keeps its name until `end`: a press of Stop cancels the call first, and asks then what
    it stopped.
    """

    running: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @contextmanager
    def run(self, name: str, progress: gr.Progress) -> Iterator[Callable[[float, str], None]]:
        """A run of that name: what is given, called with (fraction, text), shows progress, or raises Stopped."""
        stop, canceled, told = threading.Event(), False, float("-inf")
        with self.lock:
            self.stop, self.running = stop, name

        def tell(fraction: float, text: str) -> None:
            nonlocal told
            if stop.is_set():
                raise Stopped
            check_wanted()
            give_way()
            now = time.monotonic()
            if now - told >= TOLD_EVERY:
                told = now
                progress(fraction, desc=text)

        try:
            yield tell
            if stop.is_set():  # pressed during the last step, after which nothing looks any more
                raise Stopped
        except (Stopped, GeneratorExit):
            canceled = True
            raise
        finally:
            with self.lock:
                if self.stop is stop and not canceled:  # else another run has begun
                    self.running = ""

    def end(self) -> str:
        """Make what runs end at its next step. Returns its name, empty where nothing ran since it was last asked."""
        with self.lock:
            self.stop.set()
            name, self.running = self.running, ""
        return name
