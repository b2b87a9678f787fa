"""Accept your own edits of a bundle's card, figures or head settings: its manifest is written anew."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, check that the edited files still make a bundle, and name them."""
    parser = argparse.ArgumentParser(prog="medssl accept", description=__doc__)
    parser.add_argument("--bundle", required=True, help="the bundle folder")
    arguments = parser.parse_args(given)

    from medssl.bundle.edits import accept_edits

    edited = accept_edits(arguments.bundle)
    print(f"Accepted: {', '.join(edited)}." if edited else "No file differs; the manifest is written.")
    return 0
