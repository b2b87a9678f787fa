"""The process that decodes strangers' files for a SafeReader: requests on its input, answers on its output."""

from __future__ import annotations

import pickle
import struct
import sys
from typing import BinaryIO

from PIL import Image

from medssl.errors import ImageError
from medssl.images.picture import Picture

LENGTH = struct.Struct("<Q")
DAMAGED = "The image is damaged, too large to unpack, or made to harm, and cannot be decoded. Export it again."


def limit_memory(most: int) -> None:
    """Bound this process's address space, where the system can."""
    try:
        import resource
    except ImportError:  # Windows has no such limit; the deadline stays
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def packed_answer(size: tuple[int, int], pixels: bytes, notes: tuple[str, ...], error: str) -> bytes:
    """An answer as plain bytes, see `safe_reader.read_answer`."""
    said, wrong = "\n".join(notes).encode(), error.encode()
    return struct.pack("<4Q", *size, len(said), len(wrong)) + said + wrong + pixels


def answer_to(data: bytes, frame: int | None) -> bytes:
    """The picture of a file, or the sentence why there is none."""
    try:
        picture = Picture.read(data, frame)
        return packed_answer(picture.image.size, picture.image.tobytes(), picture.notes, "")
    except ImageError as error:
        return packed_answer((0, 0), b"", (), str(error))
    except (MemoryError, RecursionError, ValueError, OSError, ArithmeticError, LookupError):
        return packed_answer((0, 0), b"", (), DAMAGED)


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until the input ends."""
    sink.write(LENGTH.pack(0))
    sink.flush()
    while head := source.read(LENGTH.size):
        data, frame = pickle.loads(source.read(LENGTH.unpack(head)[0]))  # from the parent alone
        reply = answer_to(data, frame)
        sink.write(LENGTH.pack(len(reply)) + reply)
        sink.flush()


if __name__ == "__main__":
    Image.init()
    limit_memory(int(sys.argv[1]))
    serve(sys.stdin.buffer, sys.stdout.buffer)
