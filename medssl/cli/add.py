"""Add confirmed new cases to a bundle's library, or take them back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from medssl.cli import options
from medssl.text import printable


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, add or undo, and say what was done."""
    parser = argparse.ArgumentParser(
        prog="medssl add",
        description=f"{__doc__} The head is not fitted again; metrics and card say that the figures were measured "
        "before. Pictures that the bundle has, and groups of its test and validation split, are refused.",
        parents=[options.of_cache()],
    )
    parser.add_argument("--bundle", required=True, metavar="DIR", help="the bundle folder")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--data", metavar="DIR|HUB_ID", help="labelled images, as for build")
    action.add_argument("--undo", metavar="ID", help="take back an addition, or one added case, by its id")
    action.add_argument("--list", action="store_true", help="list the additions")
    parser.add_argument(
        "--skip-refused", action="store_true", help="add the others where some are refused (default: add nothing)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no notes of libraries")
    arguments = options.parsed(parser, given)

    from medssl.bundle.additions import add_cases, undo_addition
    from medssl.bundle.bundle import Bundle

    if arguments.list:
        for one in Bundle.load(arguments.bundle).metrics.get("additions") or []:
            print(f"{one['id']}  {one['date']}  {len(one['cases'])} cases of {printable(one['data'])}")
        return 0
    if arguments.undo:
        bundle = undo_addition(arguments.bundle, arguments.undo)
        print(f"Taken back. The library holds {len(bundle.library)} cases.")
        return 0
    added = add_cases(arguments.bundle, arguments.data, arguments.skip_refused, arguments.cache, not arguments.quiet)
    for one in added.refused:
        print(f"refused {printable(one.name)}: {printable(one.reason)}")
    print(
        f"{len(added.cases)} cases added as {added.id}; the library holds {len(added.bundle.library)}. Take them back "
        f"with: medssl add --bundle {arguments.bundle} --undo {added.id}"
    )
    return 0
