"""Sentences where Gradio answers a request that does not fit with an exception of its own, or with nothing."""

from __future__ import annotations

import inspect
import json
import logging
import traceback
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import gradio as gr

ASKED = "/gradio_api/call/"
JOINED = "/gradio_api/queue/join"
GENERAL_ERROR = "Something went wrong in this program, not in your image. Try again; if it stays, tell its maintainer."
FILE = 'an uploaded file as {"path": "...", "meta": {"_type": "gradio.FileData"}} (upload it to /gradio_api/upload)'
log = logging.getLogger(__name__)


def places(error: BaseException, count: int = 4) -> str:
    """Where an error was raised, innermost first: file, line and function, never content."""
    frames = traceback.extract_tb(error.__traceback__)[-count:]
    return " <- ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))


class PlainBlocks(gr.Blocks):
    """Blocks that answer values of the wrong number or kind with a sentence."""

    async def preprocess_data(
        self,
        block_fn: Any,  # noqa: ANN401
        inputs: Any,  # noqa: ANN401
        *more: Any,  # noqa: ANN401
        **settings: Any,  # noqa: ANN401
    ) -> list:
        """The values as a function takes them. Raises gr.Error."""
        try:
            return await super().preprocess_data(block_fn, completed(block_fn, inputs), *more, **settings)
        except gr.Error:
            raise
        except Exception as error:
            raise gr.Error(misfit(block_fn, inputs), print_exception=False) from error


def completed(function: Any, given: Sequence) -> Sequence:  # noqa: ANN401
    """The values given to a function (a BlockFunction), with null for those at the end that are null by default."""
    parameters = list(inspect.signature(function.fn).parameters.values())[: len(function.inputs)]
    missing = parameters[len(given) :]
    return [*given, *[None for _ in missing]] if missing and all(each.default is None for each in missing) else given


def values_of(function: Any) -> list[str]:  # noqa: ANN401
    """What the values of a function of the app (a BlockFunction) are called, in order."""
    return [block.label or block.get_block_name() for block in function.inputs]


def misfit(function: Any, given: Sequence) -> str:  # noqa: ANN401
    """Why the values given to a function (a BlockFunction) do not fit, in one sentence."""
    wanted, name = values_of(function), function.api_name or "this event"
    if len(given) != len(wanted):
        listed = "; ".join(wanted)
        return f'{name} takes {len(wanted)} values in "data", {len(given)} were given. In this order: {listed}.'
    files = [label for block, label in zip(function.inputs, wanted, strict=True) if isinstance(block, gr.File)]
    if files:
        return f"What was given to {name} as {files[0]!r} is no file that was uploaded here. It takes {FILE}, or null."
    return f"The values given to {name} do not fit. It takes, in this order: {'; '.join(wanted)}."


class PlainAnswers:
    """An ASGI middleware round Gradio's routes of calls."""

    def __init__(self, app: Callable) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Pass a request on; what it cannot answer is answered by a sentence as JSON."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path.startswith(ASKED) or path.rstrip("/") == JOINED):
            await self.app(scope, receive, send)
            return
        status, said = refusal(scope)
        if said:
            await answer(send, status, said)
            return
        started = replaced = False

        async def sending(message: dict) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start" and message["status"] in (422, 500):
                replaced = True
                await answer(send, 422, body_misfit(scope))
            started = started or message["type"] == "http.response.start"
            if not replaced:
                await send(message)

        try:
            await self.app(scope, receive, sending)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if started:
                raise
            log.error("%s at %s", type(error).__name__, places(error))
            await answer(send, 422, body_misfit(scope))


def endpoints(scope: dict) -> dict[str, Any]:
    """The public functions of the app by name."""
    functions = scope["app"].get_blocks().fns.values()
    return {function.api_name: function for function in functions if function.api_visibility == "public"}


def called(scope: dict) -> list[str]:
    """The parts of a call's path: the endpoint's name, and the id of a call whose answer is asked for."""
    parts = scope["path"].removeprefix(ASKED).strip("/").split("/")
    return parts[1:] if parts[0] == "v2" else parts


def refusal(scope: dict) -> tuple[int, str]:
    """Why a call cannot be passed on, as status and sentence; (0, "") where it can."""
    if not scope["path"].startswith(ASKED):
        return 0, ""
    name, *ids = called(scope) or [""]
    known = endpoints(scope)
    if name not in known:
        return 404, f"There is no endpoint {name!r} here. There are: {', '.join(sorted(known))}."
    queue = scope["app"].get_blocks()._queue
    unanswered = {*queue.event_ids_to_events, *chain.from_iterable(queue.pending_event_ids_session.values())}
    if scope["method"] == "GET" and ids and ids[0] not in unanswered:
        return 404, f"There is no call {ids[0]!r} of yours here: its answer was fetched already, or it was dropped."
    return 0, ""


def body_misfit(scope: dict) -> str:
    """What the body of a call should hold, in one sentence."""
    if not scope["path"].startswith(ASKED):
        return "This is no call of one of the page's functions: data, fn_index and session_hash do not fit."
    name = called(scope)[0]
    wanted = "; ".join(values_of(endpoints(scope)[name]))
    form = "an object of named values" if "/call/v2/" in scope["path"] else '{"data": [...]}'
    return f"The request does not fit {name}: its body is JSON, {form}, with {wanted or 'no values'}."


async def answer(send: Callable, status: int, said: str) -> None:
    """Answer by a sentence."""
    body = json.dumps({"detail": said}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
