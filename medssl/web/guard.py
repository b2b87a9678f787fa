"""Who may ask this server what: host names, origins, routes and sizes, checked before Gradio sees a request."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from medssl.web.traffic import PATIENCE_SECONDS, Listeners, UploadedBytes, client_address, headers_of, waiting_calls

HOSTS_VARIABLE = "MEDSSL_ALLOWED_HOSTS"
EVERYWHERE = ("0.0.0.0", "::", "")
SHARED = ".gradio.live"  # the names of Gradio's relay, `--share`
HUB_FRAMES = ("https://huggingface.co", "https://*.hf.space")
# Gradio's routes that this page does not need: editors, converters, writers of files, watchers. (`run/` and `api/` are
# closed by `api_open=False` but for the Stop button.)
CLOSED = (
    "component_server",
    "deep_link",
    "dev/",
    "process_recording",
    "profiling/",
    "proxy=",
    "run-history/",
    "stream/",
    "undo-vibe-edit",
    "vibe-",
)
PREFIX = "/gradio_api/"
MEGABYTE = 2**20
# A file may be as large as `launch_options` says, and a browser sends all files of one upload together; an assistant's
# call (MCP) holds a file in base64.
BODY_BYTES = {"upload": 300 * MEGABYTE, "mcp": 84 * MEGABYTE}
OTHER_BODY_BYTES = MEGABYTE
Receive = Callable[[], Any]
Send = Callable[[dict], Any]


class TooMuch(Exception):
    """A request's body is larger than is taken; `status` and the sentence are its answer."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


def host_name(netloc: str) -> str:
    """The host name of a Host header or an origin's netloc, without its port; "" where it is none."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").lower()
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether a host name is an IP address, which no foreign page can be made to be called (rebinding needs a name)."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class GuardRules:
    """What a Guard allows, made by `GuardRules.of`.

    `hosts` are the names that the server answers to (a leading dot allows all below), `listed` those of them that were
    named by whoever runs it: behind a proxy, pages under these names are its own. One client may upload `upload_bytes`
    within a minute and have `queued_calls` waiting or running; a call that nobody listened for during `patience`
    seconds is dropped. `frames` are sites that may show the page in a frame.
    """

    hosts: frozenset[str]
    listed: frozenset[str] = frozenset()
    upload_bytes: int = 300 * MEGABYTE
    queued_calls: int = 8
    patience: float = PATIENCE_SECONDS
    frames: tuple[str, ...] = ()

    @classmethod
    def of(cls, host: str, listed: Iterable[str] = (), share: bool = False) -> GuardRules:
        """The rules of a server on an address: this machine's names, a Space's own, MEDSSL_ALLOWED_HOSTS, `listed`."""
        named = {*listed, *os.environ.get(HOSTS_VARIABLE, "").split(","), os.environ.get("SPACE_HOST", "")}
        named = {name.strip().lower() for name in named if name.strip()}
        own = {"localhost", socket.gethostname().lower()} | ({SHARED} if share else set())
        if host not in EVERYWHERE:
            own.add(host.lower())
        frames = HUB_FRAMES if os.environ.get("SPACE_ID") else ()
        return cls(frozenset(own | named), frozenset(named), frames=frames)

    def answers_to(self, name: str) -> bool:
        """Whether the server answers to a host name."""
        below = any(name.endswith(host) for host in self.hosts if host.startswith("."))
        return name in self.hosts or below or is_address(name)

    def is_own(self, origin: str, host: str) -> bool:
        """Whether a page of that origin is this server's own, which was asked under the Host header `host`."""
        try:
            netloc = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return bool(netloc) and (netloc == host.lower() or host_name(netloc) in self.listed)


class Guard:
    """An ASGI middleware before Gradio's own routes; what it refuses is answered by a sentence as JSON."""

    def __init__(self, app: Callable, rules: GuardRules) -> None:
        self.app, self.rules = app, rules
        self.uploaded = UploadedBytes(rules.upload_bytes)
        self.listeners = Listeners(rules.patience)
        ancestors = " ".join(("'self'", *rules.frames))
        self.headers = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
        self.headers.append((b"content-security-policy", f"frame-ancestors {ancestors}".encode()))
        if not rules.frames:
            self.headers.append((b"x-frame-options", b"SAMEORIGIN"))

    async def __call__(self, scope: dict, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on with the headers of every answer."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # Gradio uses no websocket
            await send({"type": "websocket.close", "code": 1008})
            return
        status, said = self.refusal(scope, headers_of(scope))
        if said:
            await self.refuse(send, status, said)
            return
        started = False

        async def sending(message: dict) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *self.headers]}
            await send(message)

        try:
            with self.listening(scope):
                await self.app(scope, self.counted(scope, receive), sending)
        except TooMuch as error:
            if not started:
                await self.refuse(send, error.status, str(error))

    def refusal(self, scope: dict, headers: Mapping[str, str]) -> tuple[int, str]:
        """Why a request is not passed on, as status and sentence; (0, "") where it is."""
        host, path = headers.get("host", ""), scope["path"]
        name = host_name(host)
        if not self.rules.answers_to(name):
            return 403, (
                f"This server does not answer to the name {name!r}. Whoever runs it can allow it: --allow-host {name}."
            )
        if "origin" in headers and not self.rules.is_own(headers["origin"], host):
            return 403, "A page of another site may not use this server. Open the server's own page."
        if path.removeprefix(PREFIX).startswith(CLOSED) or path.startswith("/monitoring"):
            return 404, "This route of Gradio's is closed here. Ask through /gradio_api/call/NAME, or gradio_client."
        if joins_queue(scope):
            queue = scope["app"].get_blocks()._queue
            if waiting_calls(queue, client_address(scope)) >= self.rules.queued_calls:
                return 429, (
                    f"You have {self.rules.queued_calls} calls waiting here, the most that one client may have. Wait "
                    "for one to end."
                )
            self.listeners.watch(queue)
        length = headers.get("content-length", "0")
        try:
            self.check_size(path, int(length) if length.isdigit() else 0)
        except TooMuch as error:
            return error.status, str(error)
        return 0, ""

    def check_size(self, path: str, size: int) -> None:
        """Raises TooMuch for a body that is larger than its route takes."""
        allowed = BODY_BYTES.get(path.removeprefix(PREFIX).split("/")[0], OTHER_BODY_BYTES)
        if size > allowed:
            raise TooMuch(413, f"The request holds more than {allowed // MEGABYTE} MB, the most that is taken here.")

    def counted(self, scope: dict, receive: Receive) -> Receive:
        """`receive`, which raises TooMuch when a request, or its client within a minute, sends more than it may."""
        client, size = client_address(scope), 0

        async def bounded() -> dict:
            nonlocal size
            message = await receive()
            count = len(message.get("body", b""))
            size += count
            self.check_size(scope["path"], size)
            if not self.uploaded.add(client, count):
                most = self.rules.upload_bytes // MEGABYTE
                raise TooMuch(429, f"You sent more than {most} MB within a minute. Wait a minute.")
            return message

        return bounded

    def listening(self, scope: dict) -> Any:  # noqa: ANN401
        """A context in which somebody is known to wait for the answer that this request asks for."""
        parts = scope["path"].removeprefix(PREFIX).rstrip("/").split("/")
        if scope["method"] == "GET" and parts == ["queue", "data"]:
            query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
            return self.listeners.listening(query.get("session_hash", [""])[0])
        if scope["method"] == "GET" and parts[0] == "call":
            return self.listeners.listening(parts[-1])
        return nullcontext()

    async def refuse(self, send: Send, status: int, said: str) -> None:
        """Answer by a sentence."""
        body = json.dumps({"detail": said}).encode()
        start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *self.headers]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body})


def joins_queue(scope: dict) -> bool:
    """Whether a request is a call that will wait in Gradio's queue."""
    path = scope["path"].removeprefix(PREFIX)
    return scope["method"] == "POST" and (path.startswith("call/") or path.rstrip("/") == "queue/join")
