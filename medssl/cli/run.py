"""What every verb shares: errors as plain sentences with an exit code, and NAME=DIR arguments."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from medssl.errors import MedSSLError
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


def named_folders(values: list[str]) -> dict[str, str]:
    """DIR or NAME=DIR arguments as a dict; a bare DIR is named by its last part."""
    pairs = (value.split("=", 1) if "=" in value else (Path(value).name, value) for value in values)
    return {name: folder for name, folder in pairs}
