"""Strangers' files: read as in this process, bounded in time and memory, others served meanwhile."""

import io
import os
import pickle
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medssl.errors import ImageError
from medssl.images import decoding_child, read_image
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
    # The size stands in the header: such a DICOM is refused without its pixels, which are not there.
    promised = dicom(RAMP, Rows=6000, Columns=6000)
    with pytest.raises(ImageError, match="25 megapixels"):
        reader.read(promised)
    with pytest.raises(ImageError) as plainly:
        read_image(promised)
    assert "megapixels" not in str(plainly.value)


def test_dicom_is_said(reader):
    assert reader.read(dicom(RAMP, WindowCenter="64", WindowWidth="128")).dicom and not reader.read(PNG).dicom


def test_what_several_people_listed_by_turns_is_listed_once_each(tmp_path, monkeypatch):
    listed = []
    real = decoding_child.read_images
    monkeypatch.setattr(decoding_child, "read_images", lambda paths: listed.append(paths) or real(paths))
    uploads = [[str(tmp_path / f"{number}.png")] for number in range(decoding_child.MOST_LISTED + 1)]
    for (path,) in uploads:
        Path(path).write_bytes(PNG)
    answers = decoding_child.Answers()
    for _ in range(3):
        for paths in uploads[:-1]:
            answers(("list", paths, None))
            answers(("entry", paths, 0))
    assert listed == uploads[:-1]
    answers(("list", uploads[-1], None))
    answers(("entry", uploads[0], 0))
    assert listed == [*uploads, uploads[0]] and len(answers.listed) == decoding_child.MOST_LISTED


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot wait for a pipe so")
def test_files_are_let_go_when_nobody_asks(tmp_path, monkeypatch):
    made = []

    class Watched(decoding_child.Answers):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setattr(decoding_child, "Answers", Watched)
    monkeypatch.setattr(decoding_child, "IDLE_SECONDS", 0.5)
    (tmp_path / "a.png").write_bytes(PNG)
    reading, writing = os.pipe()
    requests, sink = os.fdopen(writing, "wb"), io.BytesIO()
    serving = threading.Thread(target=decoding_child.serve, args=(os.fdopen(reading, "rb"), sink), daemon=True)
    serving.start()
    request = pickle.dumps(("list", [str(tmp_path / "a.png")], None))
    requests.write(struct.pack("<Q", len(request)) + request)
    requests.flush()
    for wanted in (True, False):
        end = time.monotonic() + 30
        while time.monotonic() < end and bool(made and made[0].listed) is not wanted:
            time.sleep(0.02)
        assert bool(made[0].listed) is wanted
    requests.close()
    serving.join(30)
    assert not serving.is_alive()
