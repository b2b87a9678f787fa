"""What each client of the server does: bytes sent, calls waiting, and whether anybody listens for an answer.

Gradio 6.31 keeps its calls as events of `Blocks._queue`; what is read of them here has no public name.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

WINDOW_SECONDS = 60.0
MOST_CLIENTS = 4096  # that are remembered before those of past minutes are forgotten
PATIENCE_SECONDS = 30.0  # a call that nobody listened for that long is dropped
LOOK_EVERY = 1.0


def headers_of(scope: dict) -> dict[str, str]:
    """A request's headers as text."""
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}


def client_address(scope: dict) -> str:
    """Who asks: the peer's address; on a Space what its proxy, the last that added to it, says of it."""
    forwarded = headers_of(scope).get("x-forwarded-for", "") if os.environ.get("SPACE_ID") else ""
    return forwarded.split(",")[-1].strip() or (scope.get("client") or ("unknown",))[0]


@dataclass
class UploadedBytes:
    """What each client sent within its running minute, at `most` bytes."""

    most: int
    sent: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, client: str, count: int) -> bool:
        """Count bytes of a client; False when they are too many."""
        now = time.monotonic()
        if len(self.sent) > MOST_CLIENTS:
            self.sent = {who: past for who, past in self.sent.items() if now - past[0] < WINDOW_SECONDS}
        began, before = self.sent.get(client, (now, 0))
        if now - began >= WINDOW_SECONDS:
            began, before = now, 0
        self.sent[client] = (began, before + count)
        return before + count <= self.most


def events(queue: Any) -> list[Any]:  # noqa: ANN401
    """The calls that wait or run in Gradio's queue."""
    waiting = [event for line in queue.event_queue_per_concurrency_id.values() for event in line.queue]
    return waiting + [event for job in queue.active_jobs if job for event in job]


def waiting_calls(queue: Any, client: str) -> int:  # noqa: ANN401
    """How many calls of a client wait or run."""
    return sum(client_address(event.request.scope) == client for event in events(queue))


class Listeners:
    """Who listens for answers; calls that nobody listens for are dropped, so that they give back slot and processor."""

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self.patience = patience
        self.waiting: Counter[str] = Counter()
        self.watching: asyncio.Task | None = None

    @contextmanager
    def listening(self, key: str) -> Iterator[None]:
        """A context in which a client listens for the calls of a session, or for one call, by its key."""
        self.waiting[key] += 1
        try:
            yield
        finally:
            self.waiting[key] -= 1
            if not self.waiting[key]:
                del self.waiting[key]

    def heard(self, event: Any) -> bool:  # noqa: ANN401
        """Whether anybody listens for a call, or still may begin to."""
        young = time.monotonic() - event.enqueue_time < self.patience
        return young or event.session_hash in self.waiting or event._id in self.waiting

    def watch(self, queue: Any) -> None:  # noqa: ANN401
        """Look for unheard calls from now on until there is none any more; to be called in the server's loop."""
        if self.watching is None or self.watching.done():
            self.watching = asyncio.get_running_loop().create_task(self.drop_unheard(queue))

    async def drop_unheard(self, queue: Any) -> None:  # noqa: ANN401
        """Take unheard calls out of the queue, and make those that run end at their next step."""
        await asyncio.sleep(LOOK_EVERY)
        while present := events(queue):
            for event in present:
                if not self.heard(event):
                    await queue.clean_events(event_id=event._id)
                    queue.pending_event_ids_session.get(event.session_hash, set()).discard(event._id)
            await asyncio.sleep(LOOK_EVERY)
