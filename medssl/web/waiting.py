"""What the port answers while libraries, models and cases are loaded: a page that says so and opens the real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from medssl.templates import environment

RETRY_SECONDS = 2
Say = Callable[[str], None]


class WaitingServer(ThreadingHTTPServer):
    """Answers every request with 503 and the state that was said last."""

    daemon_threads = True
    state = "Starting."

    def __init__(self, host: str, port: int) -> None:
        self.page = environment("medssl.web", "html").get_template("waiting.html.jinja")
        super().__init__((host, port), WaitingAnswer)

    def say(self, state: str) -> None:
        """Show another state from now on."""
        self.state = state


class WaitingAnswer(BaseHTTPRequestHandler):
    """One request: the page for a browser, a sentence for a program."""

    server: WaitingServer
    timeout = 5.0
    server_version, sys_version = "medssl", ""

    def do_GET(self) -> None:  # noqa: N802  the name that http.server calls
        """Not ready yet: 503, and when to ask again."""
        for_people = "text/html" in self.headers.get("Accept", "")
        state = self.server.state
        text = self.server.page.render(state=state) if for_people else f"medssl is not ready yet. {state}\n"
        body = text.encode()
        self.send_response(HTTPStatus.SERVICE_UNAVAILABLE)
        self.send_header("Content-Type", f"text/{'html' if for_people else 'plain'}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Retry-After", str(RETRY_SECONDS))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing: what visitors ask is not logged."""


@contextmanager
def waiting_page(host: str, port: int) -> Iterator[Say]:
    """Serve the waiting page while inside; call what it gives with each new state. Afterwards the port is free.

    Where the port cannot be had, nothing is served: whoever needs it next says why.
    """
    try:
        server = WaitingServer(host, port)
    except OSError:
        yield lambda _state: None
        return
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.say
    finally:
        server.shutdown()
        server.server_close()
