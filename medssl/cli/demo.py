"""Start the page over the synthetic demo bundles that come with medssl; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence

from medssl.cli import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """As `serve`, over the shipped bundles."""
    given = list(arguments or ())
    if {"-h", "--help"} & set(given):
        return serve.main(given)  # before anything heavy is imported

    from medssl.demo.bundles import shipped_bundles

    return serve.main(["--bundle", *map(str, shipped_bundles()), *given])
