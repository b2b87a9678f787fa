"""What every part of the page that shows an answer can do; the page knows its parts by this alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.events import Dependency

from medssl.bundle.analyzer import Analysis
from medssl.bundle.bundle import Bundle
from medssl.web.plain_errors import guarded
from medssl.web.service import HEAVY, MANY, Service
from medssl.web.session import Visit

Updates = dict[Block, Any]
PRIVATE = {"api_visibility": "private"}
SLOW = {**PRIVATE, **HEAVY}
LONG = {**PRIVATE, **MANY}
QUICK = {**PRIVATE, "show_progress": "hidden", "concurrency_limit": 4}
# Gradio runs the event again that came last while it was busy.
LATEST = {"trigger_mode": "always_last"}


def plain(function: Callable) -> Callable:
    """A function of the page with every exception as a sentence in a toast."""
    return guarded(function, toast=True)


def first_ending(
    runs: list, listen: Callable[..., Dependency], function: Callable, *args: Any, **options: Any
) -> Dependency:
    """Listen to an event that ends `runs` and then calls the function with what `listen` takes beside it.

    Gradio's `cancels` given with a function ends them once that has answered, and with them what was begun meanwhile.
    """
    listen(None, cancels=runs, **PRIVATE)
    return listen(function, *args, **options)


@dataclass(frozen=True)
class Wiring:
    """What the events of a panel are given by the page: `asked` are visit, task, target, opacity and method.

    `number` chooses one of several pictures (from 1); setting it opens that one.
    """

    service: Service
    visit: gr.State
    task: gr.Dropdown
    asked: list[Block]
    number: gr.Slider


class Panel(ABC):
    """A part of the page, made inside the Blocks being built. `outputs` is all that it ever changes."""

    name = ""  # the elem_id of its column
    of_upload = False  # it stays while another picture of the same upload is opened
    outputs: list[Block]

    @abstractmethod
    def blank(self, bundle: Bundle) -> Updates:
        """Nothing found yet, for the task of that bundle."""

    def received(self, visit: Visit) -> Updates:  # noqa: ARG002
        """What a fresh upload, or another task for it, adds to the blank panel. Nothing by default."""
        return {}

    def turned(self, visit: Visit) -> Updates:  # noqa: ARG002
        """What another picture of the same upload changes, in a panel that stays. Nothing by default."""
        return {}

    def show(self, bundle: Bundle, analysis: Analysis, opacity: float) -> Updates:  # noqa: ARG002
        """What is new in a growing analysis: class, then cases, then explanation. Nothing by default."""
        return {}

    def changed_by(self, visit: Visit) -> list[Block]:  # noqa: ARG002
        """What the visitor changed of what an analysis showed, and its next step leaves alone. Nothing by default."""
        return []

    def stopped(self, run: str, visit: Visit) -> Updates:  # noqa: ARG002
        """What stands where the result of that run would have appeared. Nothing where it is another panel's run."""
        return {}

    def reblend(self, visit: Visit, opacity: float) -> Updates:  # noqa: ARG002
        """The pictures at another opacity, where there are any."""
        return {}

    def connect(self, wiring: Wiring) -> list:  # noqa: ARG002
        """Make the panel's own events. Returns those that a new upload, another task and Stop cancel."""
        return []
