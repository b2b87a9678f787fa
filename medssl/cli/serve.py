"""Start the page: choose bundles, build the Blocks, launch."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
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


def silent(_state: str) -> None:
    """Say nothing."""


def load_bundles(paths: Sequence[str], say: Callable[[str], None] = silent) -> dict[str, Bundle]:
    """The bundles under their tasks' names; a second one of the same task keeps its folder's name beside it."""
    from medssl.bundle.bundle import Bundle
    from medssl.web.zero_gpu import lend

    bundles: dict[str, Bundle] = {}
    for number, path in enumerate(paths, 1):
        say(f"Loading bundle {number} of {len(paths)}: {Path(path).name}.")
        bundle = lend(Bundle.load(path))
        name = bundle.task.name if bundle.task.name not in bundles else f"{bundle.task.name} ({bundle.name})"
        bundles[name if name not in bundles else f"{bundle.task.name} ({path})"] = bundle
    return bundles


def default_host() -> str:
    """Where a Space or GRADIO_SERVER_NAME says; else this machine only."""
    everywhere = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"
    return os.environ.get("GRADIO_SERVER_NAME") or everywhere


def curated_folders(names: Sequence[str], paths: Sequence[str]) -> dict[str, Path]:
    """The folders of the bundles that a page with --curate may add to. Raises BundleError where it may not."""
    from medssl.demo.bundles import shipped_bundles
    from medssl.errors import BundleError

    if os.environ.get("SPACE_ID"):
        raise BundleError("--curate is for a machine of your own: a Space is open to everybody and forgets its disk.")
    shipped = {folder.resolve() for folder in shipped_bundles()}
    for path in paths:
        if not Path(path).is_dir() or Path(path).resolve() in shipped:
            raise BundleError(f"{path!r} cannot be added to: --curate takes bundle folders of your own (--bundle DIR).")
    return dict(zip(names, map(Path, paths), strict=True))


def build(paths: Sequence[str], curate: bool = False, say: Callable[[str], None] = silent) -> gr.Blocks:
    """The page over those bundles; `curate` lets it add to them, `say` is told what is being done.

    Raises MedSSLError for a bad bundle.
    """
    from medssl.web.zero_gpu import prepare

    prepare()
    from medssl.web.page import build_app

    bundles = load_bundles(paths, say)
    say("Opening the page.")
    return build_app(bundles, curated_folders(list(bundles), paths) if curate else None)


def main(
    arguments: Sequence[str] | None = None,
    beside: Path = Path("bundles"),
    choose: Callable[[Sequence[str], Path], list[str]] = choose_bundles,
) -> int:
    """Run from the command line; `choose` makes the bundles of those given.

    Returns 0, or 2 when a bundle cannot be loaded or the page cannot start.
    """
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
    parser.add_argument(
        "--curate",
        action="store_true",
        help="let whoever opens the page add confirmed images to the bundles' libraries, and take them back; never on "
        "a Space",
    )
    parser.add_argument(
        "--annotate",
        metavar="DIR",
        help="instead of the page, one to draw boxes of lesions over that folder's pictures, on this machine only; "
        "encoded as the first --bundle does, else by --backbone",
    )
    parser.add_argument(
        "--backbone", default="medssl-tiny", help="the encoder of a fit while annotating (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.annotate and (options.share or not is_loopback(options.host)):
        parser.error("--annotate writes into a folder here, so it is for this machine only: no --share, no --host.")
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
        if options.annotate:
            return annotate(options.annotate, options.bundle, options.backbone, Address(options.host, int(port)))
        address = Address(options.host, int(port), options.share, tuple(options.allow_host))
        return serve(lambda: choose(options.bundle, beside), options.curate, address)


@dataclass(frozen=True)
class Address:
    """Where a page is served: `allowed` are host names that it answers to beside its own."""

    host: str
    port: int
    share: bool = False
    allowed: tuple[str, ...] = ()


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def annotate(folder: str, paths: Sequence[str], backbone: str, address: Address) -> int:
    """Serve the page that draws boxes over a folder until it is stopped. Returns the exit code."""
    from medssl.errors import MedSSLError
    from medssl.web.annotate import build_annotate_page, keyboard
    from medssl.web.annotator import Annotator, embedder_of

    try:
        bundles = list(load_bundles(paths[:1]).values()) if paths else []
        page = build_annotate_page(Annotator(folder, embedder_of(bundles, backbone)))
    except MedSSLError as error:
        print(f"The page cannot start: {error}", file=sys.stderr)
        return 2
    return launch(page, address, head=keyboard())


def serve(choose: Callable[[], Sequence[str]], curate: bool, address: Address) -> int:
    """Build the page over the bundles chosen, behind one that says what is loaded, and launch it until it is stopped.

    Returns the exit code.
    """
    from medssl.errors import MedSSLError
    from medssl.web.waiting import waiting_page

    try:
        with waiting_page(address.host, address.port) as say:
            say("Loading the libraries.")
            page = build(choose(), curate, say)
    except MedSSLError as error:
        print(f"The page cannot start: {error}", file=sys.stderr)
        return 2
    return launch(page, address)


def launch(page: gr.Blocks, address: Address, **settings: str) -> int:
    """Launch a page until it is stopped. Returns the exit code."""
    from medssl.web.guard import GuardRules
    from medssl.web.page import launch_options

    rules = GuardRules.of(address.host, address.allowed, address.share)
    place = {"server_name": address.host, "server_port": address.port, "share": address.share}
    try:
        page.launch(**place, **launch_options(rules), **settings)
    except OSError as error:
        print(
            f"The page cannot start on {address.host}:{address.port}: {error}. Choose another --port.", file=sys.stderr
        )
        return 2
    return 0
