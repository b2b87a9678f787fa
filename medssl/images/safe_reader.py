"""Files of strangers, decoded in a child process with a memory limit and a deadline.

A decoder that hangs or fills the memory cannot be stopped in a thread. The child is kept for the next file, so that a
good one costs no start; it is killed, and another started, when a file breaks its bounds.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import LifoQueue
from selectors import EVENT_READ, DefaultSelector
from typing import IO, Any, cast

from PIL import Image

from medssl.errors import ImageError
from medssl.images.picture import Picture
from medssl.images.pictures import PictureEntry
from medssl.images.read import read_bytes

SECONDS = 5.0
LIST_SECONDS = 30.0  # of many files, each of which is looked at
STARTS_WITHIN = 30.0
MEMORY_BYTES = 1000 * 2**20  # of address space, beyond which the child gets a MemoryError
LENGTH = struct.Struct("<Q")
MOST_ANSWER = 256 * 2**20
Request = tuple[str, Any, int | None]  # kind, the bytes or paths, which picture
SLOW = "The file could not be read within {seconds:g} seconds, so it was given up. Export the image anew, or smaller."


@dataclass(frozen=True)
class Answer:
    """What a child says: an RGB picture and where it stood, or where many pictures lie, or why there is neither."""

    size: tuple[int, int] = (0, 0)
    pixels: bytes | memoryview = b""
    notes: tuple[str, ...] = ()
    error: str = ""
    frame: int = 0
    frames: int = 1
    name: str = ""
    dicom: bool = False
    entries: tuple[PictureEntry, ...] = ()

    def picture(self) -> Picture:
        """The picture."""
        image = Image.frombytes("RGB", self.size, self.pixels)
        return Picture(image, self.notes, self.frame, self.frames, self.name, self.dicom)


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

    def ask(self, request: Request, seconds: float) -> Answer | None:
        """The answer to a request; None when it did not come within the deadline or the child died."""
        deadline = time.monotonic() + seconds
        packed_request = pickle.dumps(request)
        # Sent by a thread: a child that no longer reads would block the pipe.
        sender = threading.Thread(target=self.send, args=(packed_request,), daemon=True)
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
        (length,) = LENGTH.unpack_from(packed)
        facts = json.loads(packed[LENGTH.size : LENGTH.size + length])
        entries = tuple(PictureEntry(**entry) for entry in facts.pop("entries", ()))
        width, height = facts.pop("size", (0, 0))
        notes = tuple(str(note) for note in facts.pop("notes", ()))
        pixels = memoryview(packed)[LENGTH.size + length :]  # a view, as the copy is large
        answer = Answer((width, height), pixels, notes, entries=entries, **facts)
        return answer if len(pixels) == 3 * width * height else None
    except (struct.error, ValueError, TypeError, AttributeError, LookupError, RecursionError):
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
        return self._ask(("picture", read_bytes(source), frame), self.seconds).picture()

    def read_many(self, paths: Sequence[str | Path]) -> SafePictures:
        """All pictures in files and zips, each decoded in a child when it is asked for; see `read_images`.

        Raises ImageError.
        """
        places = [str(path) for path in paths]
        return SafePictures(self, places, self._ask(("list", places, None), LIST_SECONDS))

    def read_entry(self, paths: list[str], number: int) -> Picture:
        """One of the pictures that `read_many` listed. Raises ImageError."""
        # A child that did not list them looks at all files first.
        return self._ask(("entry", paths, number), LIST_SECONDS).picture()

    def _ask(self, request: Request, seconds: float) -> Answer:
        """A child's answer. Raises ImageError for what it refuses, and when it breaks its bounds."""
        child = self._children.get()
        try:
            if child is None or child.process.poll() is not None:
                child = Child()
            answer = child.ask(request, seconds)
            if answer is None:
                child.end()
                child = None
                raise ImageError(SLOW.format(seconds=seconds))
        finally:
            self._children.put(child)
        if answer.error:
            raise ImageError(answer.error)
        return answer

    def close(self) -> None:
        """End the children that wait; one that is busy ends with this process, when its pipe closes."""
        waiting = []
        while not self._children.empty():
            waiting.append(self._children.get())
        for child in waiting:
            if child is not None:
                child.end()
            self._children.put(None)


class SafePictures(Sequence[Picture]):
    """Pictures of strangers' files, as `Pictures` are those of one's own; made by `SafeReader.read_many`."""

    def __init__(self, reader: SafeReader, paths: list[str], listing: Answer) -> None:
        self._reader, self._paths = reader, paths
        self.entries, self.notes = listing.entries, listing.notes

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401
        """One picture, or a list of them for a slice. Raises ImageError."""
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self._reader.read_entry(self._paths, number) for number in numbers]
        return self._reader.read_entry(self._paths, numbers)
