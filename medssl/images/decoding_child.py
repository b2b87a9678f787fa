"""The process that decodes strangers' files for a SafeReader: requests on its input, answers on its output."""

from __future__ import annotations

import io
import pickle
import struct
import sys
from typing import BinaryIO

from PIL import Image

from medssl.errors import ImageError
from medssl.images.limits import DAMAGED, MAX_UPLOAD_PIXELS, check_size
from medssl.images.picture import Picture
from medssl.images.read import PILLOW_FORMATS

LENGTH = struct.Struct("<Q")
UNDECODABLE = "The image is damaged, too large to unpack, or made to harm, and cannot be decoded. Export it again."


def limit_memory(most: int) -> None:
    """Bound this process's address space, where the system can."""
    try:
        import resource
    except ImportError:  # Windows has no such limit; the deadline stays
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer_head(size: tuple[int, int], notes: tuple[str, ...], error: str) -> bytes:
    """All of an answer but its pixels as plain bytes, see `safe_reader.read_answer`."""
    said, wrong = "\n".join(notes).encode(), error.encode()
    return struct.pack("<4Q", *size, len(said), len(wrong)) + said + wrong


def check_header(data: bytes) -> None:
    """Raises ImageError for a file that says of itself, before any pixel is decoded, that it is too large an upload.

    What Pillow cannot open is left to `read_image`; a DICOM file's size is known when it was read.
    """
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as image:
            size = image.size
    except DAMAGED:
        return
    check_size(*size, MAX_UPLOAD_PIXELS)


def answer_to(data: bytes, frame: int | None) -> tuple[bytes, bytes]:
    """The picture of a file, or the sentence why there is none: head and pixels, which a copy would make twice."""
    try:
        check_header(data)
        picture = Picture.read(data, frame)
        check_size(*picture.image.size, MAX_UPLOAD_PIXELS)
        return answer_head(picture.image.size, picture.notes, ""), picture.image.tobytes()
    except ImageError as error:
        return answer_head((0, 0), (), str(error)), b""
    except (MemoryError, RecursionError, ValueError, OSError, ArithmeticError, LookupError):
        return answer_head((0, 0), (), UNDECODABLE), b""


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until the input ends."""
    sink.write(LENGTH.pack(0))
    sink.flush()
    while length := source.read(LENGTH.size):
        data, frame = pickle.loads(source.read(LENGTH.unpack(length)[0]))  # from the parent alone
        head, pixels = answer_to(data, frame)
        sink.write(LENGTH.pack(len(head) + len(pixels)) + head)
        sink.write(pixels)
        sink.flush()


if __name__ == "__main__":
    Image.init()
    limit_memory(int(sys.argv[1]))
    serve(sys.stdin.buffer, sys.stdout.buffer)
