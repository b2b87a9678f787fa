"""The process that decodes strangers' files for a SafeReader: requests on its input, answers on its output."""

from __future__ import annotations

import json
import os
import pickle
import select
import struct
import sys
from dataclasses import asdict
from typing import Any, BinaryIO

from PIL import Image

from medssl.errors import ImageError
from medssl.images.limits import MAX_UPLOAD_PIXELS, MOST_PIXELS
from medssl.images.picture import Picture
from medssl.images.pictures import Pictures, read_images

LENGTH = struct.Struct("<Q")
MOST_LISTED = 4
IDLE_SECONDS = 60.0
UNDECODABLE = "The image is damaged, too large to unpack, or made to harm, and cannot be decoded. Export it again."


def limit_memory(most: int) -> None:
    """Bound this process's address space, where the system can."""
    try:
        import resource
    except ImportError:  # Windows has no such limit; the deadline stays
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def packed(facts: dict[str, Any]) -> bytes:
    """All of an answer but its pixels as plain data, see `safe_reader.read_answer`."""
    text = json.dumps(facts).encode()
    return LENGTH.pack(len(text)) + text


def picture_answer(picture: Picture) -> tuple[bytes, bytes]:
    """A picture: its facts, and its pixels, which a copy would make twice."""
    facts = {name: getattr(picture, name) for name in ("notes", "frame", "frames", "name", "dicom")}
    return packed({"size": picture.image.size, **facts}), picture.image.tobytes()


class Answers:
    """Answers to requests; the pictures that were listed last are remembered, so that requests of several people by
    turns do not list theirs anew each time.
    """

    def __init__(self) -> None:
        self.listed: dict[tuple[str, ...], Pictures] = {}

    def pictures(self, paths: list[str]) -> Pictures:
        """The pictures in files. Raises ImageError."""
        name = tuple(paths)
        for other, pictures in self.listed.items():
            if other != name:
                pictures.close()  # the memory is for one file
        found = self.listed.pop(name, None) or read_images(paths)
        self.listed[name] = found  # as the last
        while len(self.listed) > MOST_LISTED:
            del self.listed[next(iter(self.listed))]
        return found

    def answer(self, kind: str, source: Any, number: int | None) -> tuple[bytes, bytes]:  # noqa: ANN401
        """What is asked for: head and pixels. Raises ImageError, and what decoders raise."""
        if kind == "picture":
            return picture_answer(Picture.read(source, number))
        pictures = self.pictures(source)
        if kind == "entry":
            return picture_answer(pictures[number or 0])
        return packed({"notes": pictures.notes, "entries": [asdict(entry) for entry in pictures.entries]}), b""

    def __call__(self, request: tuple) -> tuple[bytes, bytes]:
        """The answer to a request, or the sentence why there is none."""
        try:
            return self.answer(*request)
        except ImageError as error:
            return packed({"error": str(error)}), b""
        except (MemoryError, RecursionError, ValueError, OSError, ArithmeticError, LookupError):
            return packed({"error": UNDECODABLE}), b""


def nobody_asks(source: BinaryIO) -> bool:
    """Whether no request comes for IDLE_SECONDS; always False on Windows, where a pipe cannot be waited for so."""
    return os.name == "posix" and not select.select([source], [], [], IDLE_SECONDS)[0]


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until the input ends."""
    sink.write(LENGTH.pack(0))
    sink.flush()
    answers = Answers()
    while True:
        if nobody_asks(source):
            answers.listed.clear()  # else a file that was deleted would stay open
        length = source.read(LENGTH.size)
        if not length:
            return
        request = pickle.loads(source.read(LENGTH.unpack(length)[0]))  # from the parent alone
        head, pixels = answers(request)
        sink.write(LENGTH.pack(len(head) + len(pixels)) + head)
        sink.write(pixels)
        sink.flush()


if __name__ == "__main__":
    Image.init()
    MOST_PIXELS.set(MAX_UPLOAD_PIXELS)
    limit_memory(int(sys.argv[1]))
    serve(sys.stdin.buffer, sys.stdout.buffer)
