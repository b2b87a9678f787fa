"""What a compressed frame says of itself: size and bits a sample. Decoders follow it, not the DICOM tags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# JPEG markers that start a frame: SOF0 to SOF15 without DHT, JPG and DAC; 0xF7 is JPEG-LS's.
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
STANDALONE = {0x01, *range(0xD0, 0xD8)}


@dataclass(frozen=True)
class Codestream:
    """The header of a JPEG, JPEG-LS or JPEG 2000 frame."""

    width: int
    height: int
    precision: int


def jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers of a JPEG stream with the place of their content, up to the scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in STANDALONE:
            position += 2
            continue
        yield marker, position + 4
        if marker == 0xDA:
            return
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def read_codestream(data: bytes) -> Codestream | None:
    """The header of a compressed frame, None where it is of none of these kinds."""
    if data[:2] == b"\xff\xd8":
        for marker, start in jpeg_markers(data):
            if marker in FRAME_MARKERS:
                height = int.from_bytes(data[start + 1 : start + 3], "big")
                return Codestream(int.from_bytes(data[start + 3 : start + 5], "big"), height, data[start])
        return None
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(data) < start + 43:
        return None
    # SIZ: marker 2, length 2, capabilities 2, then width, height and their offsets, 4 bytes each.
    right, bottom, left, top = (int.from_bytes(data[start + at : start + at + 4], "big") for at in (8, 12, 16, 20))
    return Codestream(right - left, bottom - top, (data[start + 42] & 0x7F) + 1)
