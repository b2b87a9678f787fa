"""A bundle's cases on a Qdrant server: `push` moves them, `status` says what it holds, `verify` compares answers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from medssl.errors import LibraryError

if TYPE_CHECKING:
    from datasets import Dataset

    from medssl.library.library import CaseLibrary
    from medssl.library.server_store import ServerSettings, ServerStore
    from medssl.library.space import CaseSpace

DIFFERS = 1
RECALL = 0.99  # asked of answers that a graph gives; where all cases are compared, they must be equal


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--bundle", required=True, metavar="DIR|HUB_ID", help="the bundle whose cases are meant")
    common.add_argument(
        "--url", help="the server's address (default: MEDSSL_QDRANT_URL; MEDSSL_QDRANT_API_KEY opens it)"
    )
    common.add_argument(
        "--timeout", type=int, default=120, help="seconds that one call may take (default: %(default)s)"
    )
    parser = argparse.ArgumentParser(prog="medssl library", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    push = verbs.add_parser("push", parents=[common], help="move the cases there; what was interrupted goes on")
    push.add_argument("--shards", type=int, help="parts of a new collection (default: the server's)")
    push.add_argument("--replicas", type=int, help="copies of each part (default: the server's)")
    push.add_argument(
        "--quantization",
        choices=("none", "int8", "binary"),
        default="none",
        help="of the vectors kept in memory; candidates are compared again by the full ones (default: %(default)s)",
    )
    push.add_argument("--on-disk", action="store_true", help="keep the full vectors on disk")
    push.add_argument("--degree", type=int, default=16, help="HNSW's m (default: %(default)s)")
    push.add_argument("--construction-width", type=int, default=128, help="HNSW's ef_construct (default: %(default)s)")
    push.add_argument("--batch", type=int, default=256, help="cases a call (default: %(default)s)")
    push.add_argument("--parallel", type=int, default=4, help="calls at once (default: %(default)s)")
    push.add_argument(
        "--anew", action="store_true", help="delete what is there of these cases first, as new settings need"
    )
    push.add_argument("--quiet", action="store_true", help="no progress bar")
    verbs.add_parser("status", parents=[common], help="what the server holds of the bundle")
    verify = verbs.add_parser("verify", parents=[common], help="compare its answers with those given without a server")
    verify.add_argument("--queries", type=int, default=200, help="how many are asked (default: %(default)s)")
    verify.add_argument("--top-k", type=int, default=10, help="cases a query (default: %(default)s)")
    verify.add_argument("--seed", type=int, default=0, help="of the queries (default: %(default)s)")
    arguments = parser.parse_args(given)
    arguments.url = arguments.url or os.environ.get("MEDSSL_QDRANT_URL")
    if not arguments.url or not arguments.url.startswith(("http://", "https://")):
        parser.error("give the server's address: --url http://HOST:PORT, or MEDSSL_QDRANT_URL.")
    return arguments


def open_server(arguments: argparse.Namespace, settings: ServerSettings | None = None) -> ServerStore:
    """The store on the server named. Raises LibraryError."""
    from tqdm.auto import tqdm

    from medssl.library.server_store import KEY_VARIABLE, ServerStore

    bar = tqdm(desc="cases", unit="case", disable=getattr(arguments, "quiet", True))

    def progress(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    key = os.environ.get(KEY_VARIABLE) or None
    return ServerStore(arguments.url, key, arguments.timeout, settings, progress)


def cases_of(bundle: str) -> tuple[str, Dataset, CaseSpace | None]:
    """The name, the cases and the space of a bundle's library; its backbone is not loaded. Raises BundleError."""
    from medssl.bundle.bundle import library_name, searched_cases, task_of
    from medssl.bundle.storage import read_contents

    contents = read_contents(bundle)
    name = library_name(task_of(contents.head, contents.name), contents.head.backbone)
    return name, searched_cases(contents.cases), contents.space


def push(arguments: argparse.Namespace) -> int:
    """Fill the bundle's collection and let its name stand for it."""
    from medssl.library.library import CaseLibrary, plain_name
    from medssl.library.server_store import ServerSettings

    settings = ServerSettings(**{field.name: getattr(arguments, field.name) for field in fields(ServerSettings)})
    name, cases, space = cases_of(arguments.bundle)
    store = open_server(arguments, settings)
    if arguments.anew:
        store.forget(name)
        store.forget(plain_name(name))
    with CaseLibrary(cases, store, name, space=space) as library:
        print(f"{len(library):,} cases are in {library.collection} on {arguments.url}.")
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Print what the server holds under the bundle's name, and of its plain embeddings where cases are compared in a
    space of their own.
    """
    from medssl.library.library import plain_name

    name, cases, space = cases_of(arguments.bundle)
    store = open_server(arguments)
    try:
        found = {**store.describe(name), **(store.describe(plain_name(name)) if space else {})}
    finally:
        store.close()
    if not found:
        print(f"{arguments.url} holds nothing of {name}. Move it there: medssl library push.")
        return DIFFERS
    print(f"the bundle: {len(cases):,} cases, as {name}")
    for collection, facts in found.items():
        print(f"{collection}: {', '.join(f'{key} {value}' for key, value in facts.items())}")
    return 0


def compare(first: CaseLibrary, second: CaseLibrary, arguments: argparse.Namespace) -> tuple[int, float]:
    """How many of the queries two libraries answer alike, and the mean share of the first's cases that both name.

    Queries are cases, moved a little; in turn nothing, the case's group and the case itself are left out.
    """
    import numpy as np

    random = np.random.default_rng(arguments.seed)
    alike, shares = 0, []
    for number in range(arguments.queries):
        row = int(random.integers(len(first)))
        case = first.case_at(row)
        noise = random.normal(size=case.embedding.shape) * 0.1 * np.abs(case.embedding).mean()
        excluded = ({}, {"exclude_group": case.group_id}, {"exclude_id": case.id})[number % 3]
        answers = [library.search(case.embedding + noise, arguments.top_k, **excluded) for library in (first, second)]
        keys = [[(case.id, round(case.score, 9)) for case in answer] for answer in answers]
        alike += keys[0] == keys[1]
        shares.append(len(set(keys[0]) & set(keys[1])) / max(1, len(keys[0])))
    return alike, float(np.mean(shares))


def verify(arguments: argparse.Namespace) -> int:
    """Compare the server's answers with those given without it; 1 where they differ."""
    from medssl.library.library import CaseLibrary, case_vectors, embedded_place
    from medssl.library.store import EXACT_UP_TO

    name, cases, space = cases_of(arguments.bundle)
    store = open_server(arguments)
    if not store.holds(name, case_vectors(cases, space)):
        store.close()
        raise LibraryError(
            f"{arguments.url} does not hold the {len(cases):,} cases of {name} as they are. Move them there: "
            f"medssl library push --bundle {arguments.bundle} --url {arguments.url}"
        )
    place = embedded_place(len(cases))
    with CaseLibrary(cases, store, name, space=space) as there, CaseLibrary(cases, place, name, space=space) as here:
        alike, share = compare(here, there, arguments)
    exact = len(cases) <= EXACT_UP_TO
    print(f"{alike} of {arguments.queries} queries answered alike; {share:.4f} of the cases named by both.")
    good = alike == arguments.queries if exact else share >= RECALL
    print("The server answers as medssl does without it." if good else "The server's answers DIFFER.")
    return 0 if good else DIFFERS


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments and do what the verb says."""
    arguments = parse(given)
    return {"push": push, "status": status, "verify": verify}[arguments.verb](arguments)
