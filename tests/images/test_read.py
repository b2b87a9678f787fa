"""Every kind of good and bad file a user may bring: an RGB image or one plain ImageError, nothing else."""

import io
import os
import random
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    RLELossless,
)

from medssl.errors import ImageError
from medssl.images import read as images
from medssl.images.read import FORMATS, MAX_BYTES, image_id, read_image
from tests.pictures import DEFLATED, JPEG, JPEG_GRAY, PNG, RAMP, dicom, gradient, saved, wrapped

# Damaged files make Pillow and pydicom warn; what is tested is what comes out.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_come_back_pixel_by_pixel(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(read_image(saved(gradient(), kind, **options)), gradient())


def test_every_way_to_hand_in_an_image_gives_the_same(tmp_path):
    data = saved(gradient(), "PNG")
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with path.open("rb") as stream:
        found = [read_image(x) for x in (path, str(path), data, bytearray(data), io.BytesIO(data), stream, gradient())]
    assert len({image_id(image) for image in found}) == 1
    assert all(image.mode == "RGB" and image.size == (32, 24) for image in found)


def test_content_decides_not_the_name(tmp_path):
    for name, data in {"a.dcm": saved(gradient(), "PNG"), "b.jpg": dicom(RAMP), "c": saved(gradient(), "WEBP")}.items():
        (tmp_path / name).write_bytes(data)
        assert read_image(tmp_path / name).mode == "RGB"


def test_sixteen_bit_png_and_tiff_use_their_range():
    full = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = np.asarray(read_image(saved(Image.fromarray(full), kind)))[..., 0]
        np.testing.assert_array_equal(found, np.round(full / 257).astype(np.uint8))
        narrow = np.asarray(read_image(saved(Image.fromarray(RAMP // 4), kind)))[..., 0]
        assert narrow.min() == 0 and narrow.max() == 255


def test_float_tiff_with_nan():
    values = np.linspace(-3, 9, 400, dtype=np.float32).reshape(20, 20)
    values[0, 0] = np.nan
    found = np.asarray(read_image(saved(Image.fromarray(values), "TIFF")))[..., 0]
    assert found.min() == 0 and found.max() == 255
    assert (np.diff(found.ravel()[1:].astype(int)) >= 0).all()


def test_palette_alpha_gray_and_cmyk():
    palette = gradient().quantize(64)
    np.testing.assert_array_equal(read_image(saved(palette, "PNG")), palette.convert("RGB"))
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    assert read_image(saved(clear, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    half = Image.new("LA", (4, 4), (0, 255))
    assert read_image(saved(half, "PNG")).getpixel((0, 0)) == (0, 0, 0)
    marked = Image.new("P", (4, 4), 1)
    marked.putpalette([0, 0, 0, 9, 9, 9])
    assert read_image(saved(marked, "PNG", transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert read_image(saved(Image.new("1", (4, 4), 1), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    cmyk = gradient().convert("CMYK")
    found = np.asarray(read_image(saved(cmyk, "JPEG", quality=95)), int)
    assert np.abs(found - np.asarray(cmyk.convert("RGB"), int)).mean() < 6


def test_exif_rotation_is_applied_and_every_metadatum_dropped():
    exif = Image.Exif()
    exif[274] = 6
    exif[270] = "Jane Doe"
    found = read_image(saved(gradient(), "JPEG", exif=exif, dpi=(300, 300), comment=b"secret"))
    assert found.size == (24, 32)
    assert found.info == {} and not dict(found.getexif())
    assert b"Jane" not in saved(found, "PNG")


def test_tiff_gives_its_first_frame():
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    assert read_image(saved(first, "TIFF", save_all=True, append_images=[second])).getpixel((0, 0)) == (255, 0, 0)


def big_png(width, height):
    """A PNG header that claims a size, with hardly any data behind it."""
    data = bytearray(saved(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def closed_image():
    image = Image.open(io.BytesIO(PNG))
    image.close()
    return image


def tall_tiff():
    """A TIFF of 24 rows that says it has 5,000: Pillow would give black for the rest."""
    data = saved(gradient(), "TIFF")
    entry = data.index(struct.pack("<HH", 257, 4))
    return data[: entry + 8] + struct.pack("<I", 5000) + data[entry + 12 :]


def jpeg_bomb():
    """A DICOM file whose tags say 200 x 200 and whose JPEG says 51 megapixels."""
    stream = JPEG_GRAY.index(b"\xff\xc0") + 5
    return wrapped(JPEG_GRAY[:stream] + struct.pack(">HH", 5100, 10000) + JPEG_GRAY[stream + 4 :])


BAD = {
    "empty": (b"", "empty"),
    "one byte": (b"x", "not an image"),
    "text": (b"hello, this is a letter " * 20, "not an image"),
    "random bytes": (random.Random(0).randbytes(5000), "not an image|damaged"),
    "zeros": (b"\0" * 4096, "not an image|damaged"),
    "truncated PNG": (PNG[: len(PNG) // 2], "damaged|cut off"),
    "PNG header only": (PNG[:20], "damaged|cut off|not an image"),
    "PNG signature only": (PNG[:8], "damaged|not an image"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], "damaged|cut off"),
    "JPEG signature only": (JPEG[:4], "damaged|not an image"),
    "truncated TIFF": (saved(gradient(), "TIFF")[:200], "damaged|cut off|not an image"),
    "truncated WebP": (saved(gradient(), "WEBP")[:60], "damaged|cut off|not an image"),
    "truncated BMP": (saved(gradient(), "BMP")[:100], "damaged|cut off"),
    "GIF": (saved(gradient().quantize(16), "GIF"), "GIF"),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>', "SVG"),
    "bare SVG": (b"  <svg></svg>", "SVG"),
    "PDF": (b"%PDF-1.7\n" + b"x" * 100, "PDF"),
    "web page": (b"<!DOCTYPE html><html></html>", "web page"),
    "ZIP": (b"PK\x03\x04" + b"\0" * 60, "ZIP"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 60, "gzip"),
    "icon": (saved(gradient(16, 16), "ICO"), "icon"),
    "MP4": (b"\0\0\0\x18ftypmp42" + b"\0" * 60, "video"),
    "HEIC": (b"\0\0\0\x18ftypheic" + b"\0" * 60, "HEIC"),
    "AVI": (b"RIFF\x10\0\0\0AVI LIST" + b"\0" * 60, "video"),
    "PPM (a format not on the list)": (saved(gradient(), "PPM"), "not an image"),
    "51 megapixels": (big_png(10000, 5100), "50 megapixels"),
    "4 gigapixels": (big_png(65535, 65535), "50 megapixels"),
    "over 50 MB": (b"\x89PNG" + b"\0" * MAX_BYTES, "50 MB"),
    "DICOM without pixels": (dicom(RAMP, PixelData=None), "no picture"),
    "DICOM with short pixels": (dicom(RAMP, PixelData=b"\0" * 100), "damaged"),
    "DICOM cut off": (dicom(RAMP)[:1000], "damaged|no picture"),
    "DICOM mark only": (b"\0" * 128 + b"DICM", "damaged|no picture"),
    "DICOM of 51 megapixels": (dicom(RAMP, Rows=10000, Columns=5100), "50 megapixels"),
    "DICOM without rows": (dicom(RAMP, Rows=None), "damaged"),
    "DICOM of zero rows": (dicom(RAMP, Rows=0), "no pixels|damaged"),
    "DICOM of odd bits": (dicom(RAMP, BitsAllocated=13), "damaged"),
    "TIFF of NaN": (saved(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"), "no finite"),
    "None": (None, "NoneType is no image"),
    "a number": (7, "int is no image"),
    "TIFF taller than its strips": (tall_tiff(), "damaged"),
    "a closed PIL image": (closed_image(), "damaged"),
    "a PIL image of a cut file": (Image.open(io.BytesIO(JPEG[: len(JPEG) // 2])), "cut off"),
    "7-Zip": (b"7z\xbc\xaf\x27\x1c" + b"\0" * 60, "7-Zip"),
    "RAR": (b"Rar!\x1a\x07" + b"\0" * 60, "RAR"),
    "Office document": (b"\xd0\xcf\x11\xe0" + b"\0" * 60, "Office"),
    "PostScript": (b"%!PS-Adobe-3.0", "PostScript"),
    "Photoshop": (b"8BPS" + b"\0" * 60, "Photoshop"),
    "NumPy file": (b"\x93NUMPY" + b"\0" * 60, "NumPy"),
    "NIfTI": (b"\x5c\x01\0\0" + b"\0" * 344, "NIfTI"),
    "JPEG 2000 picture": (saved(gradient(), "JPEG2000"), "JPEG 2000"),
    "AVIF": (b"\0\0\0\x18ftypavif" + b"\0" * 60, "AVIF"),
    "sound": (b"RIFF\x10\0\0\0WAVE" + b"\0" * 60, "sound"),
    "a device": ("/dev/zero", "no regular file"),
    "DICOM with a JPEG of 51 megapixels inside": (jpeg_bomb(), "50 megapixels"),
    "DICOM video": (dicom(RAMP, TransferSyntaxUID=MPEG2MPML, PixelData=encapsulate([JPEG])), "MPEG2.*video"),
    "DICOM with a cut JPEG inside": (wrapped(JPEG[:1500]), "JPEG Baseline.*damaged"),
    "DICOM of broken run lengths": (wrapped(b"\7" * 90, RLELossless), "RLE Lossless.*damaged"),
    "DICOM of endless run lengths": (wrapped(b"\x81\0" * 60000, RLELossless), "damaged"),
    "deflated DICOM cut off": (DEFLATED[: len(DEFLATED) // 2], "damaged"),
    "deflated DICOM of junk": (DEFLATED[:400] + b"\xff" * 300, "damaged"),
    "an array": (np.zeros((4, 4)), "ndarray is no image"),
    "a text stream": (io.StringIO("x"), "binary mode"),
    "a missing path": ("/nowhere/at/all.png", "cannot be opened"),
    "a path with a null byte": ("a\0b", "cannot be opened"),
    "a folder": (os.path.dirname(__file__), "folder"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_gives_one_plain_error(kind):
    source, message = BAD[kind]
    with pytest.raises(ImageError, match=message) as caught:
        read_image(source)
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text and len(text) < 400
    assert read_image(PNG).size == (32, 24), "the process lives on"


def test_there_are_at_least_thirty_kinds_of_bad_input():
    assert len(BAD) >= 30


@pytest.mark.parametrize("attempt", range(4))
def test_damaged_files_of_every_format_never_raise_anything_else(attempt):
    """Seeded fuzzing: truncations and flipped bytes of each format."""
    dice = random.Random(attempt)
    seeds = [PNG, JPEG, dicom(RAMP[:16, :16]), saved(gradient().quantize(8), "PNG")]
    seeds += [saved(gradient(), kind) for kind in ("TIFF", "WEBP", "BMP")]
    seeds += [saved(gradient(), "TIFF", compression=kind) for kind in ("tiff_lzw", "jpeg", "tiff_adobe_deflate")]
    seeds += [saved(Image.fromarray(RAMP[:9, :9]), kind) for kind in ("PNG", "TIFF")]
    seeds += [
        DEFLATED[:],
        wrapped(JPEG_GRAY),
        dicom(RAMP[:9, :9])[344:],
        dicom(RAMP[:9, :9], WindowCenter=9, WindowWidth=4),
    ]
    rle = get_testdata_file("MR_small_RLE.dcm", download=False)
    if rle:
        seeds.append(open(rle, "rb").read())
    outcomes = {"image": 0, "error": 0}
    for seed in seeds:
        for _ in range(25):
            data = bytearray(seed)
            for _ in range(dice.randint(1, 12)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            if dice.random() < 0.3:
                data = data[: dice.randrange(len(data))]
            try:
                assert read_image(bytes(data)).mode == "RGB"
                outcomes["image"] += 1
            except ImageError:
                outcomes["error"] += 1
    assert outcomes["image"] and outcomes["error"]


def test_size_is_checked_before_decoding(monkeypatch):
    data = big_png(10000, 5100)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="megapixels"):
        images.decode(data)


def test_nothing_global_is_changed_also_by_many_threads():
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    wanted, found = image_id(read_image(PNG)), []
    data = dicom(RAMP[:8, :8])

    def work():
        for _ in range(60):
            read_image(data)
            found.append(image_id(read_image(PNG)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 480
    assert before == (Image.MAX_IMAGE_PIXELS, list(warnings.filters))


def test_ids_tell_pictures_apart():
    one, two = np.zeros((2, 8, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)
    assert image_id(Image.fromarray(one)) != image_id(Image.fromarray(two))
    assert image_id(gradient()) == image_id(read_image(PNG))


@pytest.mark.parametrize(
    "mode",
    "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr LAB HSV I F I;16 I;16L I;16B I;16N".split(),
)
def test_every_mode_of_pillow(mode):
    found = read_image(Image.new(mode, (4, 3)))
    assert found.mode == "RGB" and found.size == (4, 3) and found.info == {}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_from_bytes_and_from_an_open_image(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(gradient(), "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    for source in (data, Image.open(io.BytesIO(data))):
        found = read_image(source)
        assert np.array_equal(found, expected) and found.info == {} and not dict(found.getexif())


def test_broken_exif_does_not_cost_the_picture():
    exif = Image.Exif()
    exif[274] = 6
    good = saved(gradient(), "JPEG", exif=exif)
    broken = good.replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX")
    assert broken != good
    assert read_image(broken).size == (32, 24)


def test_eight_bit_pictures_stored_in_sixteen_come_back_exactly():
    eight = np.asarray(gradient().convert("L"))
    data = saved(Image.fromarray(eight.astype(np.uint16) * 257), "PNG")
    assert np.array_equal(np.asarray(read_image(data))[..., 0], eight)


def test_one_hot_pixel_does_not_darken_a_scan():
    scan = (np.arange(128 * 128, dtype=np.uint16) % 4096).reshape(128, 128)
    scan[5, 5] = 60000
    assert np.asarray(read_image(saved(Image.fromarray(scan), "TIFF"))).mean() > 100


def test_infinite_values_are_the_ends_of_the_range():
    values = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    values[0, 0], values[9, 9] = np.inf, -np.inf
    found = np.asarray(read_image(saved(Image.fromarray(values), "TIFF")))[..., 0]
    assert found[0, 0] == 255 and found[9, 9] == 0


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="no regular file"):
        read_image(tmp_path / "pipe")


def test_unbuffered_streams_give_their_bytes_in_pieces():
    class Slow(io.RawIOBase):
        def __init__(self):
            self.inner = io.BytesIO(PNG)

        def read(self, size=-1):
            return self.inner.read(min(size, 7))

    assert image_id(read_image(Slow())) == image_id(gradient())


@pytest.mark.parametrize("frame", ["a", None, 1.5, True])
def test_a_frame_is_a_whole_number(frame):
    with pytest.raises(ImageError, match="whole number"):
        read_image(PNG, frame=frame)


def test_the_page_can_name_the_formats():
    assert FORMATS == ("PNG", "JPEG", "TIFF", "WebP", "BMP", "DICOM", "NIfTI")
