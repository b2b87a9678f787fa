"""Who may ask this server what: host names, origins, sizes and numbers, checked before Gradio sees a request."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

HOSTS_VARIABLE = "MEDSSL_ALLOWED_HOSTS"
EVERYWHERE = ("0.0.0.0", "::", "")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SHARED = ".gradio.live"  # the names of Gradio's relay, `--share`
WINDOW_SECONDS = 60.0
HUB_FRAMES = ("https://huggingface.co", "https://*.hf.space")
Receive = Callable[[], Any]
Send = Callable[[dict], Any]


def allowed_hosts(host: str, more: Iterable[str] = (), share: bool = False) -> frozenset[str]:
    """The names that this server answers to: this machine's, the given one, the Space's own, and those listed."""
    names = {"localhost", socket.gethostname(), os.environ.get("SPACE_HOST", ""), *more}
    names |= set(os.environ.get(HOSTS_VARIABLE, "").split(","))
    names |= {SHARED} if share else set()
    if host not in EVERYWHERE:
        names.add(host)
    return frozenset(name.strip().lower() for name in names if name.strip())


def name_of(netloc: str) -> str:
    """The host name of a Host header or an origin's netloc, without its port."""
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
    """What a Guard allows: host names (a leading dot allows all below), and bounds for one client.

    `upload_bytes` may be uploaded within a minute; `queued_calls` may wait or run at the same time.
    """

    hosts: frozenset[str]
    upload_bytes: int = 300 * 2**20
    queued_calls: int = 8
    frames: tuple[str, ...] = HUB_FRAMES if os.environ.get("SPACE_ID") else ()

    def knows(self, name: str) -> bool:
        """Whether the server answers to a host name."""
        below = any(name.endswith(host) for host in self.hosts if host.startswith("."))
        return name in self.hosts or below or is_address(name)


@dataclass
class Uploads:
    """What each client uploaded within the last minute."""

    most: int
    sent: dict[str, deque[tuple[float, int]]] = field(default_factory=lambda: defaultdict(deque))

    def add(self, client: str, count: int) -> bool:
        """Count bytes of a client; False when they are too many."""
        now, pieces = time.monotonic(), self.sent[client]
        pieces.append((now, count))
        while pieces and pieces[0][0] < now - WINDOW_SECONDS:
            pieces.popleft()
        return sum(size for _, size in pieces) <= self.most


class Guard:
    """An ASGI middleware before Gradio's own routes; what it refuses is answered by a sentence as JSON."""

    def __init__(self, app: Callable, rules: GuardRules) -> None:
        self.app, self.rules = app, rules
        self.uploads = Uploads(rules.upload_bytes)
        ancestors = " ".join(("'self'", *rules.frames))
        self.headers = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
        self.headers.append((b"content-security-policy", f"frame-ancestors {ancestors}".encode()))
        if not rules.frames:
            self.headers.append((b"x-frame-options", b"SAMEORIGIN"))

    async def __call__(self, scope: dict, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on with the headers of every answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        status, said = self.refusal(scope, headers)
        if said:
            await self.refuse(send, status, said)
            return
        await self.app(scope, self.counted(scope, receive), self.with_headers(send))

    def refusal(self, scope: dict, headers: Mapping[str, str]) -> tuple[int, str]:
        """Why a request is not passed on, as status and sentence; (0, "") where it is."""
        host = name_of(headers.get("host", ""))
        if not self.rules.knows(host):
            return 403, (
                f"This server does not answer to the name {host!r}. Whoever runs it can allow it: --allow-host {host}."
            )
        if scope["method"] not in SAFE_METHODS:
            origin = headers.get("origin")
            if origin is not None:
                name = name_of(urlsplit(origin).netloc)
                own = name == host or (name in self.rules.hosts and bool(name))
                if not own and not (is_address(name) and ipaddress.ip_address(name).is_loopback):
                    return 403, "A page of another site may not use this server. Open the server's own page."
        if scope["path"].endswith("/queue/join") or "/call/" in scope["path"] and scope["method"] == "POST":
            client = self.client(scope, headers)
            if queued_calls(scope, client) >= self.rules.queued_calls:
                return 429, (
                    f"You have {self.rules.queued_calls} calls waiting here, the most that one client may have. Wait "
                    "for one to end."
                )
        return 0, ""

    def client(self, scope: dict, headers: Mapping[str, str]) -> str:
        """Who asks: the peer's address, on a Space what its proxy says of it."""
        if os.environ.get("SPACE_ID") and headers.get("x-forwarded-for"):
            return headers["x-forwarded-for"].split(",")[-1].strip()
        return (scope.get("client") or ("unknown",))[0]

    def counted(self, scope: dict, receive: Receive) -> Receive:
        """`receive`, ended early when a client uploads more than it may."""
        if not scope["path"].endswith("/upload"):
            return receive
        client = self.client(scope, {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]})

        async def bounded() -> dict:
            message = await receive()
            if not self.uploads.add(client, len(message.get("body", b""))):
                return {"type": "http.disconnect"}
            return message

        return bounded

    def with_headers(self, send: Send) -> Send:
        """`send` with the headers that every answer has."""

        async def sending(message: dict) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *self.headers]}
            await send(message)

        return sending

    async def refuse(self, send: Send, status: int, said: str) -> None:
        """Answer by a sentence."""
        body = json.dumps({"detail": said}).encode()
        start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *self.headers]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body})


def queued_calls(scope: dict, client: str) -> int:
    """How many calls of a client wait or run in Gradio's queue."""
    queue = scope["app"].get_blocks()._queue
    waiting = [event for line in queue.event_queue_per_concurrency_id.values() for event in line.queue]
    running = [event for job in queue.active_jobs if job for event in job]
    return sum(address_of(event) == client for event in (*waiting, *running))


def address_of(event: Any) -> str:  # noqa: ANN401
    """The address that a queued call came from."""
    request = getattr(event, "request", None)
    peer = getattr(request, "client", None)
    return getattr(peer, "host", "") or "unknown"
