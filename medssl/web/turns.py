"""Whose turn it is with the model: quick work first, slow work gives way to it, and neither waits for ever."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from medssl.web.wanted import check_wanted

LOOK_EVERY = 0.2
# So long slow work waits at most for a step of its own, however much quick work comes.
PATIENCE = 1.0
_here = threading.local()


class Ticket:
    """A place in one of the two lines."""

    def __init__(self, slow: bool) -> None:
        self.slow, self.since = slow, time.monotonic()


class Turns:
    """The model's turns, one at a time: two at once are slower than one after another, and hooks are shared.

    Of what waits quick work (a class, similar cases) goes before slow (a heatmap, a report), each in the order of its
    coming; slow work that waited for `patience` seconds goes before all.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._changed = threading.Condition()
        self._quick: deque[Ticket] = deque()
        self._slow: deque[Ticket] = deque()
        self._holder: Ticket | None = None

    @contextmanager
    def turn(self, slow: bool = False) -> Iterator[None]:
        """A context in which nobody else works with the model; with `slow` until it gives way.

        Raises Stopped when nobody waits for it any more.
        """
        ticket = Ticket(slow)
        self._take(ticket)
        before = getattr(_here, "turn", None)
        _here.turn = (self, ticket) if slow else None
        try:
            check_wanted()
            yield
        finally:
            _here.turn = before
            self._release(ticket)

    def give_way(self, ticket: Ticket) -> None:
        """Let all quick work that waits go first, then go on before all other slow work."""
        with self._changed:
            if not self._quick:
                return
        self._release(ticket)
        self._take(ticket, again=True)

    def _take(self, ticket: Ticket, again: bool = False) -> None:
        """Wait in line until it is this ticket's turn."""
        line = self._slow if ticket.slow else self._quick
        with self._changed:
            ticket.since = time.monotonic()
            line.appendleft(ticket) if again else line.append(ticket)
            try:
                while self._holder is not None or self._next() is not ticket:
                    self._changed.wait(LOOK_EVERY)
                    check_wanted()
                self._holder = ticket
            finally:
                line.remove(ticket)
                self._changed.notify_all()

    def _next(self) -> Ticket:
        """Who goes next of those that wait."""
        impatient = self._slow and time.monotonic() - self._slow[0].since >= self.patience
        return self._slow[0] if impatient or not self._quick else self._quick[0]

    def _release(self, ticket: Ticket) -> None:
        """Let the next one go. Nothing where another holds the turn, as after giving way in vain."""
        with self._changed:
            if self._holder is ticket:
                self._holder = None
                self._changed.notify_all()


def give_way() -> None:
    """Let quick work go first, where this thread holds a slow turn: to be called between two steps of slow work."""
    held = getattr(_here, "turn", None)
    if held:
        turns, ticket = held
        turns.give_way(ticket)
