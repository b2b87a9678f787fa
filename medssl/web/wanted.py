"""Whether anybody still waits for what is being computed."""

from __future__ import annotations

from gradio.context import LocalContext


class Stopped(Exception):
    """What was being computed is no longer wanted."""


def check_wanted() -> None:
    """Raises Stopped when the client of the running call cancelled it or went away; else does nothing.

    Gradio marks the call of a client that went away as not alive, and takes a cancelled one from its jobs, but lets
    the function run on.
    """
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    if blocks is None or event_id is None:
        return
    running = [event for job in blocks._queue.active_jobs if job for event in job]
    if not any(event._id == event_id and event.alive for event in running):
        raise Stopped
