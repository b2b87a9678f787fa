"""The folder of one app's uploads, which does not outlive it: not even when it was killed."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "medssl-uploads-"
NAME = re.compile(rf"{re.escape(PREFIX)}(\d+)-(\d+)-")


def start_of(process: int) -> str:
    """When a process started, in the system's own units; "" where there is none of that number, or no such count."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def sweep(place: Path) -> list[Path]:
    """Delete the upload folders whose process is gone. Returns them."""
    swept = []
    for folder in place.glob(f"{PREFIX}*"):
        match = NAME.match(folder.name)
        # A process of the same number that started at another time is another one.
        if match and folder.is_dir() and not folder.is_symlink() and start_of(int(match[1])) != match[2]:
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder)
    return swept


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A new folder for this process's uploads, gone at the end; those of dead processes are swept first."""
    place = Path(tempfile.gettempdir())
    sweep(place)
    own = f"{PREFIX}{os.getpid()}-{start_of(os.getpid()) or 0}-"
    with tempfile.TemporaryDirectory(prefix=own, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
