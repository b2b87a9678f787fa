"""Start the page over the synthetic demo bundles that come with medssl; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medssl.cli import serve


def with_shipped(given: Sequence[str], _beside: Path) -> list[str]:
    """The shipped bundles, then those given."""
    from medssl.demo.bundles import shipped_bundles

    return [*map(str, shipped_bundles()), *given]


def main(arguments: Sequence[str] | None = None) -> int:
    """As `serve`, over the shipped bundles."""
    return serve.main(arguments, choose=with_shipped)
