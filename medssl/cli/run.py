"""What every verb shares: errors as plain sentences with an exit code, and NAME=DIR arguments."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from medssl.errors import DataError, MedSSLError
from medssl.text import printable

CANNOT_RUN = 2
INTERRUPTED = 130


def run(main: Callable[[], int]) -> None:
    """Run a verb's main and leave with its exit code: 0 done, 2 could not run, 130 stopped by the user."""
    try:
        code = main()
    except MedSSLError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        code = CANNOT_RUN
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


def named_folders(values: list[str], option: str) -> dict[str, str]:
    """An option's DIR or NAME=DIR arguments as a dict; a bare DIR is named by its last part.

    Raises DataError where two have one name, or one has none.
    """
    pairs = (value.split("=", 1) if "=" in value else (Path(value).name, value) for value in values)
    found = {name: folder for name, folder in pairs}
    if len(found) != len(values) or "" in found:
        raise DataError(f"{option} {' '.join(values)} needs a different name for each. Write NAME=PLACE.")
    return found
