"""Files of strangers, decoded in a child process with a memory limit and a deadline.

A decoder that hangs or fills the memory cannot be stopped in a thread. The child is kept for the next file, so that a
good one costs no start; it is killed, and another started, when a file breaks its bounds.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from queue import LifoQueue
from selectors import EVENT_READ, DefaultSelector
from typing import IO, Any, cast

from PIL import Image

from medssl.errors import ImageError
from medssl.images.picture import Picture
from medssl.images.read import read_bytes

SECONDS = 5.0
STARTS_WITHIN = 30.0
MEMORY_BYTES = 1000 * 2**20  # of address space, beyond which the child gets a MemoryError
LENGTH = struct.Struct("<Q")
MOST_ANSWER = 256 * 2**20
SLOW = "The file could not be read within {seconds:g} seconds, so it was given up. Export the image anew, or smaller."


@dataclass(frozen=True)
class Answer:
    """What a child says of a file: an RGB picture, or why there is none."""

    size: tuple[int, int] = (0, 0)
    pixels: bytes | memoryview = b""
    notes: tuple[str, ...] = ()
    error: str = ""


class Child:
    """One process that decodes files, one after the other (`python -m medssl.images.decoding_child`)."""

    def __init__(self) -> None:
        package = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "medssl.images.decoding_child", str(MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, **single},
        )
        # Both are pipes, as asked for above.
        self.requests = cast(IO[bytes], self.process.stdin)
        self.answers = cast(IO[bytes], self.process.stdout)
        if self.receive(time.monotonic() + STARTS_WITHIN) is None:
            self.end()
            raise ImageError(
                "The program that reads uploads does not start. Try again; tell the maintainer if it stays."
            )

    def ask(self, data: bytes, frame: int | None, seconds: float) -> Answer | None:
        """The answer to a file; None when it did not come within the deadline or the child died."""
        deadline = time.monotonic() + seconds
        request = pickle.dumps((data, frame))
        # Sent by a thread: a child that no longer reads would block the pipe.
        sender = threading.Thread(target=self.send, args=(request,), daemon=True)
        sender.start()
        packed = self.receive(deadline)
        return None if packed is None else read_answer(packed)

    def send(self, request: bytes) -> None:
        """Hand a request to the child; a dead child is noticed when its answer is missing."""
        try:
            self.requests.write(LENGTH.pack(len(request)) + request)
            self.requests.flush()
        except (OSError, ValueError):
            return

    def receive(self, deadline: float) -> bytearray | None:
        """The child's next message; None when it does not come in time, or is larger than any picture."""
        head = self.read_exactly(LENGTH.size, deadline)
        if head is None or LENGTH.unpack(head)[0] > MOST_ANSWER:
            return None
        return self.read_exactly(LENGTH.unpack(head)[0], deadline)

    def read_exactly(self, count: int, deadline: float) -> bytearray | None:
        """That many bytes of the child's output, None when they do not come in time."""
        found = bytearray()
        descriptor = self.answers.fileno()
        with DefaultSelector() as selector:
            selector.register(descriptor, EVENT_READ)
            while len(found) < count:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                piece = os.read(descriptor, min(1 << 20, count - len(found)))
                if not piece:
                    return None
                found += piece
        return found

    def end(self) -> None:
        """Kill the process and forget its pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.requests, self.answers):
            try:
                pipe.close()
            except OSError:
                continue


def read_answer(packed: bytes | bytearray) -> Answer | None:
    """A child's message, which is plain data and no pickle: a child that was taken over must not reach this process."""
    try:
        width, height, notes_length, error_length = struct.unpack_from("<4Q", packed)
        place = struct.calcsize("<4Q")
        notes = packed[place : place + notes_length].decode("utf-8")
        error = packed[place + notes_length : place + notes_length + error_length].decode("utf-8")
        pixels = memoryview(packed)[place + notes_length + error_length :]  # a view, as the copy is large
        if not error and len(pixels) != 3 * width * height:
            return None
        return Answer((width, height), pixels, tuple(notes.splitlines()), error)
    except (struct.error, UnicodeDecodeError):
        return None


class SafeReader:
    """Reads files in `children` processes; from any thread. One file waits for another when all are busy."""

    def __init__(self, children: int = 2, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._children: LifoQueue[Child | None] = LifoQueue()
        for _ in range(children):
            self._children.put(None)

    def read(self, source: Any, frame: int | None = None) -> Picture:  # noqa: ANN401
        """The picture in a path, bytes or file object; see `read_image`. Raises ImageError."""
        data = read_bytes(source)
        child = self._children.get()
        try:
            if child is None or child.process.poll() is not None:
                child = Child()
            answer = child.ask(data, frame, self.seconds)
            if answer is None:
                child.end()
                child = None
                raise ImageError(SLOW.format(seconds=self.seconds))
        finally:
            self._children.put(child)
        if answer.error:
            raise ImageError(answer.error)
        return Picture(Image.frombytes("RGB", answer.size, answer.pixels), answer.notes)

    def close(self) -> None:
        """End the children that wait; one that is busy ends with this process, when its pipe closes."""
        waiting = []
        while not self._children.empty():
            waiting.append(self._children.get())
        for child in waiting:
            if child is not None:
                child.end()
            self._children.put(None)
