"""Start the page: choose bundles, build the Blocks, launch."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

    from medssl.bundle.bundle import Bundle


def choose_bundles(given: Sequence[str], beside: Path) -> list[str]:
    """Those given, else MEDSSL_BUNDLES (comma-separated), else those in `beside`, else the demo."""
    if given:
        return list(given)
    named = [name.strip() for name in os.environ.get("MEDSSL_BUNDLES", "").split(",") if name.strip()]
    own = [str(config.parent.parent) for config in sorted(beside.glob("*/head/config.json"))]
    if named or own:
        return named or own
    from medssl.demo.bundles import shipped_bundles

    return [str(folder) for folder in shipped_bundles()]


def load_bundles(paths: Sequence[str]) -> dict[str, Bundle]:
    """The bundles under their tasks' names; a second one of the same task keeps its folder's name beside it."""
    from medssl.bundle.bundle import Bundle
    from medssl.web.zero_gpu import lend

    bundles: dict[str, Bundle] = {}
    for path in paths:
        bundle = lend(Bundle.load(path))
        name = bundle.task.name if bundle.task.name not in bundles else f"{bundle.task.name} ({bundle.name})"
        bundles[name if name not in bundles else f"{bundle.task.name} ({path})"] = bundle
    return bundles


def default_host() -> str:
    """Where a Space or GRADIO_SERVER_NAME says; else this machine only."""
    everywhere = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"
    return os.environ.get("GRADIO_SERVER_NAME") or everywhere


def build(paths: Sequence[str]) -> gr.Blocks:
    """The page over those bundles. Raises MedSSLError for a bad bundle."""
    from medssl.web.zero_gpu import prepare

    prepare()
    from medssl.web.page import build_app

    return build_app(load_bundles(paths))


def main(arguments: Sequence[str] | None = None, beside: Path = Path("bundles")) -> int:
    """Run from the command line. Returns 0, or 2 when a bundle cannot be loaded or the page cannot start."""
    parser = argparse.ArgumentParser(prog="medssl serve", description="Start the medssl page and its API.")
    parser.add_argument(
        "--bundle",
        action="extend",
        nargs="+",
        default=[],
        metavar="DIR|HUB_ID",
        help="bundles to serve; without it MEDSSL_BUNDLES (comma-separated), else every bundle in bundles/, else "
        "the synthetic demo",
    )
    parser.add_argument("--host", default=default_host(), help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, help="port (default GRADIO_SERVER_PORT, else 7860)")
    parser.add_argument(
        "--allow-host",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="host names that the page answers to, beside this machine's and --host (also MEDSSL_ALLOWED_HOSTS, "
        "comma-separated): name a public server's here",
    )
    parser.add_argument("--share", action="store_true", help="also open a public link through Gradio's relay")
    options = parser.parse_args(arguments)
    port = options.port if options.port is not None else os.environ.get("GRADIO_SERVER_PORT", "7860")
    if not str(port).isdigit() or not 0 < int(port) < 65536:
        print(f"The port is {port!r}; allowed: 1 to 65535.", file=sys.stderr)
        return 2

    from medssl.web.upload_folders import upload_folder

    # Ended by a service manager, it stops as by Ctrl+C, and what visitors uploaded is deleted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A folder of its own for uploads, so that none outlives the app however a visit ended.
    with upload_folder() as uploads:
        os.environ.setdefault("GRADIO_TEMP_DIR", str(uploads))
        paths = choose_bundles(options.bundle, beside)
        return serve(paths, Address(options.host, int(port), options.share, tuple(options.allow_host)))


@dataclass(frozen=True)
class Address:
    """Where a page is served: `allowed` are host names that it answers to beside its own."""

    host: str
    port: int
    share: bool = False
    allowed: tuple[str, ...] = ()


def serve(paths: Sequence[str], address: Address) -> int:
    """Build the page and launch it until it is stopped. Returns the exit code."""
    from medssl.errors import MedSSLError

    try:
        page = build(paths)
    except MedSSLError as error:
        print(f"The page cannot start: {error}", file=sys.stderr)
        return 2

    from medssl.web.guard import GuardRules
    from medssl.web.page import launch_options

    rules = GuardRules.of(address.host, address.allowed, address.share)
    place = {"server_name": address.host, "server_port": address.port, "share": address.share}
    try:
        page.launch(**place, **launch_options(rules))
    except OSError as error:
        print(
            f"The page cannot start on {address.host}:{address.port}: {error}. Choose another --port.", file=sys.stderr
        )
        return 2
    return 0
