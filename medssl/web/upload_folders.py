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
UNKNOWN = "0"  # the start of a process where the system keeps no record of it
NAME = re.compile(rf"{re.escape(PREFIX)}(\d+)-(\d+)-")


def start_of(process: int) -> str:
    """When a process started, in the system's own units; "" where there is none of that number, or no such record."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def sweep(place: Path) -> list[Path]:
    """Delete this user's upload folders whose process is gone. Returns them."""
    swept = []
    for folder in place.glob(f"{PREFIX}*"):
        match = NAME.match(folder.name)
        if match and folder.is_dir() and not folder.is_symlink() and is_own(folder) and not lives(*match.groups()):
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder)
    return swept


def is_own(folder: Path) -> bool:
    """Whether a folder belongs to the user that this process runs as."""
    return not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()


def lives(process: str, started: str) -> bool:
    """Whether a process still runs. One of the same number that started at another time is another one."""
    if started != UNKNOWN:
        return start_of(int(process)) == started
    try:
        os.kill(int(process), 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


@contextmanager
def upload_folder() -> Iterator[Path]:
    """A new folder for all that this process puts into temporary files, gone at the end; dead ones' are swept first.

    Not only uploads go there, but also what is being written when the process is killed.
    """
    place = tempfile.gettempdir()
    sweep(Path(place))
    own = f"{PREFIX}{os.getpid()}-{start_of(os.getpid()) or UNKNOWN}-"
    with tempfile.TemporaryDirectory(prefix=own, ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = place
