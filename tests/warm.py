"""Programs in processes of their own that do not wait for imports: forked from one that has the libraries loaded.

Such a process has its own number, arguments, environment, folder, output and end, and can be killed; only the seconds
of importing are not spent again. What libraries read while they are imported (HF_*, OMP_NUM_THREADS) is as it was when
the tests began, and no import can be missing: what is about that, or about the start itself, runs in a Python of its
own (`run_fresh`), as does each verb once to its end.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUMBER = struct.Struct("!q")


@cache
def source() -> socket.socket:
    """Where programs are asked for: the other end is a process of this one's, which ends with it."""
    own, other = socket.socketpair()
    with other:
        command = [sys.executable, "-m", "tests.warm_source", str(other.fileno())]
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[other.fileno()])
    return own


class Started:
    """A program that was started, with what subprocess.Popen offers of it."""

    def __init__(self, arguments: Sequence[object], stdout, stderr, env: Mapping[str, str], cwd: Path) -> None:
        self.returncode: int | None = None
        self.stdout = None
        asked = {"arguments": [*map(str, arguments)], "environment": dict(env), "folder": str(cwd)}
        message = json.dumps(asked).encode()
        self.answers, other = socket.socketpair()
        with other:
            files = [other.fileno(), stdout.fileno(), stderr.fileno()]
            socket.send_fds(source(), [NUMBER.pack(len(message))], files)
            source().sendall(message)
        self.pid = self._answer()

    def _answer(self) -> int:
        return NUMBER.unpack(self.answers.recv(NUMBER.size))[0]

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended; its exit code as of subprocess. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self.answers.settimeout(timeout)
            try:
                self.returncode = os.waitstatus_to_exitcode(self._answer())
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout) from None
            self.answers.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Send a signal to it, where it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def start(arguments: Sequence[object], stdout=None, stderr=None, env=None, cwd: Path = ROOT) -> Started:
    """Start `python ARGUMENTS`: a script, or `-c CODE` or `-m MODULE`, and what that is given.

    Output goes to open files, and nowhere where none is named; `stdout` may be subprocess.PIPE.
    """
    environment = os.environ if env is None else env
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        if stdout != subprocess.PIPE:
            return Started(arguments, stdout or nowhere, stderr or nowhere, environment, cwd)
        reading, writing = os.pipe()
        with open(writing, "w", encoding="utf-8") as file:
            process = Started(arguments, file, stderr or nowhere, environment, cwd)
        process.stdout = open(reading, encoding="utf-8")
        return process


def run(arguments: Sequence[object], env=None, cwd: Path = ROOT, timeout: float = 300) -> subprocess.CompletedProcess:
    """Run `python ARGUMENTS` to its end: its exit code and what it wrote. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = start(arguments, stdout, stderr, env, cwd)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        for file in (stdout, stderr):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, code, stdout.read(), stderr.read())


def run_fresh(arguments: Sequence[object], env=None, timeout: float = 300) -> subprocess.CompletedProcess:
    """As `run`, in a Python that imports for itself."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=timeout)
