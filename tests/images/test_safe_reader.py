"""Strangers' files: read as in this process, bounded in time and memory, others served meanwhile."""

import io
import os
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from medssl.errors import ImageError
from medssl.images import read_image
from medssl.images.safe_reader import SafeReader
from tests.images.test_odd_files import RAMP, bomb, dicom
from tests.pictures import PNG, gradient, saved


@pytest.fixture(scope="module")
def reader():
    made = SafeReader(children=2)
    yield made
    made.close()


@pytest.mark.parametrize("data", [PNG, saved(gradient(), "TIFF"), dicom(RAMP, WindowCenter="64", WindowWidth="128")])
def test_a_good_file_is_read_as_in_this_process(reader, data):
    picture = reader.read(data)
    np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(read_image(data)))


def test_paths_frames_notes_and_errors_pass_through(reader, tmp_path):
    frames = np.stack([np.full((8, 8), value, np.uint8) for value in (10, 200)])
    (tmp_path / "two.dcm").write_bytes(dicom(frames.reshape(16, 8), Rows=8, NumberOfFrames=2))
    assert "holds 2 pictures" in reader.read(tmp_path / "two.dcm").notes[0]
    assert np.asarray(reader.read(tmp_path / "two.dcm", frame=1).image).mean() == 200
    for bad in (b"", b"nothing", b"%PDF-1.4 x", PNG[:60]):
        with pytest.raises(ImageError) as here:
            read_image(bad)
        with pytest.raises(ImageError) as there:
            reader.read(bad)
        assert str(here.value) == str(there.value)


def test_the_child_is_kept_and_a_dead_one_replaced():
    reader = SafeReader(children=1)
    try:
        reader.read(PNG)
        child = reader._children.queue[0]
        reader.read(PNG)
        assert reader._children.queue[0] is child
        os.kill(child.process.pid, 9)
        child.process.wait()
        assert reader.read(PNG).image.size == gradient().size
    finally:
        reader.close()
    assert child.process.poll() is not None


def nested(depth: int) -> bytes:
    """A DICOM file with sequences in sequences of undefined length."""
    opening = b"\x00\x52\x30\x92SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth
    whole = dicom(RAMP)
    place = whole.index(b"\xe0\x7f\x10\x00")
    return whole[:place] + opening + whole[place:]


def elements_in_an_item(count: int) -> bytes:
    inner = b"".join(struct.pack("<HH2sH", 0x0011, 0x10 + i % 60000, b"LO", 0) for i in range(count))
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inner)) + inner
    sequence = b"\x00\x52\x30\x92SQ\0\0" + struct.pack("<I", len(item)) + item
    whole = dicom(RAMP)
    place = whole.index(b"\xe0\x7f\x10\x00")
    return whole[:place] + sequence + whole[place:]


def png_bomb() -> bytes:
    """A PNG of 49 megapixels of one color, and a compressed text of 400 MB before it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 7000, 7000, 8, 2, 0, 0, 0))
    text = chunk(b"zTXt", b"x\0\0" + zlib.compress(b"\0" * (400 * 2**20), 9))
    pixels = zlib.compress(b"\0" * (7000 * (1 + 3 * 7000)), 1)
    return b"\x89PNG\r\n\x1a\n" + header + text + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "hostile", [lambda: bomb(b""), lambda: nested(3000), lambda: elements_in_an_item(3_000_000), png_bomb],
    ids=["deflated bomb", "nesting", "elements in an item", "png text bomb"],
)  # fmt: skip
def test_a_hostile_file_is_bounded_and_others_are_served_meanwhile(reader, hostile):
    data, ended = hostile(), []
    reader.read(PNG)

    def attack():
        started = time.monotonic()
        try:
            reader.read(data)
            ended.append(time.monotonic() - started)
        except ImageError as error:
            assert (
                "damaged" in str(error)
                or "given up" in str(error)
                or "more than" in str(error)
                or "unpack" in str(error)
            )
            ended.append(time.monotonic() - started)

    thread = threading.Thread(target=attack)
    thread.start()
    served = 0
    while thread.is_alive() and served < 20:
        assert reader.read(PNG).image.size == gradient().size
        served += 1
    thread.join(60)
    assert len(ended) == 1 and served >= 1


def test_memory_is_bounded(reader):
    """A large allowed picture passes, a larger one is refused before it is decoded."""
    stream = io.BytesIO()
    Image.new("RGB", (5000, 5000), (5, 6, 7)).save(stream, "PNG", compress_level=1)
    try:
        assert reader.read(stream.getvalue()).image.size == (5000, 5000)
    except ImageError as error:
        assert "given up" in str(error), "on a busy machine only time may run out"
    larger = io.BytesIO()
    Image.new("L", (6000, 6000)).save(larger, "PNG", compress_level=1)
    with pytest.raises(ImageError, match="25 megapixels"):
        reader.read(larger.getvalue())
