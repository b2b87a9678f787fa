"""4-bit run-length bitmaps (RLE4), which Pillow up to 12.3 reads wrongly."""

from __future__ import annotations

import numpy as np
from PIL import Image

from medssl.images.limits import check_size

RLE4 = 2
ENDS_LINE, ENDS_PICTURE, MOVES = 0, 1, 2


def is_rle4(data: bytes) -> bool:
    """Whether the bytes are a BMP file compressed as RLE4."""
    return data[:2] == b"BM" and int.from_bytes(data[30:34], "little") == RLE4 and len(data) > 54


def read_rle4(data: bytes) -> Image.Image:
    """The picture of an RLE4 bitmap (Microsoft, Bitmap compression). Raises ValueError for a damaged one."""
    width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
    check_size(width, abs(height))
    header, start = int.from_bytes(data[14:18], "little"), int.from_bytes(data[10:14], "little")
    colors = int.from_bytes(data[46:50], "little") or 16
    palette = np.frombuffer(data[14 + header : 14 + header + 4 * min(colors, 16)], np.uint8).reshape(-1, 4)
    picture = np.zeros((abs(height), width), np.uint8)
    row = column = 0
    position = start
    while position + 1 < len(data) and row < abs(height):
        count, value = data[position], data[position + 1]
        position += 2
        if count:
            run = np.resize([value >> 4, value & 15], count)
        elif value == ENDS_LINE:
            row, column = row + 1, 0
            continue
        elif value == ENDS_PICTURE:
            break
        elif value == MOVES:
            column, row = column + data[position], row + data[position + 1]
            position += 2
            continue
        else:
            size = (value + 1) // 2
            pairs = np.frombuffer(data[position : position + size], np.uint8)
            run = np.stack([pairs >> 4, pairs & 15], axis=1).ravel()[:value]
            position += size + size % 2
        fits = run[: max(0, width - column)]
        picture[row, column : column + len(fits)] = fits
        column += len(run)
    else:
        if row < abs(height):
            raise ValueError("The bitmap ends before its picture.")
    if picture.max() >= len(palette):
        raise ValueError("The bitmap names a color that it does not have.")
    colored = palette[picture][..., 2::-1]
    return Image.fromarray(np.ascontiguousarray(colored if height < 0 else colored[::-1]))
