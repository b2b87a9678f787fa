"""Every kind of good and bad file a user may bring: an RGB image or one plain ImageError, nothing else."""

import io
import os
import random
import struct
import warnings

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLosslessSV1, generate_uid

from medssl import images
from medssl.errors import ImageError
from medssl.images import MAX_BYTES, image_id, read_image


def gradient(height=24, width=32):
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def dicom(values, **tags):
    """A DICOM file of grey values `[H, W]` or `[N, H, W]` as bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["fixed"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = CTImageStorage
    dataset.PatientName = "Doe^Jane"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape[-2:]
    if values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    bits = values.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        elif name == "TransferSyntaxUID":
            meta.TransferSyntaxUID = value
        else:
            setattr(dataset, name, value)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


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


def test_palette_alpha_grey_and_cmyk():
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


def test_dicom_modality_lut_comes_before_the_window():
    data = dicom(RAMP, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=2000)
    found = np.asarray(read_image(data))[..., 0].astype(float)
    expected = np.clip(((RAMP * 2.0 - 1000) - (1000 - 0.5)) / (2000 - 1) + 0.5, 0, 1) * 255
    assert np.abs(found - expected).max() <= 1


def test_dicom_inverted_signed_constant_and_without_window():
    plain, inverted = read_image(dicom(RAMP)), read_image(dicom(RAMP, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(np.asarray(plain), 255 - np.asarray(inverted))
    assert plain.getextrema()[0] == (0, 255)
    signed = np.asarray(read_image(dicom(RAMP.astype(np.int16) - 2000)))[..., 0]
    assert signed[0, 0] == 0 and signed[-1, -1] == 255
    assert read_image(dicom(np.full((8, 8), 7, np.uint16))).getextrema()[0] == (128, 128)


def test_dicom_frames():
    frames = np.stack([RAMP, RAMP[::-1], RAMP.T])
    found = [read_image(dicom(frames), frame=index) for index in range(3)]
    assert len({image_id(image) for image in found}) == 3
    assert np.array_equal(np.asarray(found[1]), np.asarray(found[0])[::-1])
    for frame in (3, -1):
        with pytest.raises(ImageError, match="no frame .*has 3"):
            read_image(dicom(frames), frame=frame)


def test_dicom_palette_and_rgb():
    table = struct.pack("<4H", 0, 65535, 0, 0), struct.pack("<4H", 0, 0, 65535, 0), struct.pack("<4H", 0, 0, 0, 65535)
    tags = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in zip(("Red", "Green", "Blue"), table, strict=True):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        tags[f"{name}PaletteColorLookupTableData"] = values
    found = read_image(dicom(np.array([[0, 1], [2, 3]], np.uint8), **tags))
    pixels = [found.getpixel((x, y)) for y in (0, 1) for x in (0, 1)]
    assert pixels == [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    colour = np.asarray(gradient(8, 8))
    rgb = dicom(
        np.zeros((8, 8), np.uint8),
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        PixelData=colour.tobytes(),
    )
    assert np.array_equal(read_image(rgb), colour)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "image_dfl.dcm", "rtplan.dcm"])
def test_the_files_pydicom_ships(name):
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} is not in the wheel")
    if name == "rtplan.dcm":
        with pytest.raises(ImageError, match="no picture"):
            read_image(path)
    else:
        assert read_image(path).getextrema()[0][1] > 100


def test_dicom_without_preamble():
    data = dicom(RAMP)
    stripped = data[132:]
    length = struct.unpack("<I", stripped[8:12])[0]
    assert np.array_equal(read_image(stripped[12 + length :]), read_image(data))


def big_png(width, height):
    """A PNG header that claims a size, with hardly any data behind it."""
    data = bytearray(saved(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    import zlib

    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


PNG = saved(gradient(), "PNG")
JPEG = saved(gradient(200, 200), "JPEG")
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


def test_an_undecodable_syntax_is_named_with_the_package():
    with pytest.raises(ImageError, match="JPEG Lossless.*python-gdcm"):
        read_image(dicom(RAMP, TransferSyntaxUID=JPEGLosslessSV1, PixelData=encapsulated()))


def encapsulated():
    from pydicom.encaps import encapsulate

    return encapsulate([JPEG])


@pytest.mark.parametrize("attempt", range(4))
def test_damaged_files_of_every_format_never_raise_anything_else(attempt):
    """Seeded fuzzing: truncations and flipped bytes of each format."""
    dice = random.Random(attempt)
    seeds = [PNG, JPEG, dicom(RAMP[:16, :16]), saved(gradient().quantize(8), "PNG")]
    seeds += [saved(gradient(), kind) for kind in ("TIFF", "WEBP", "BMP")]
    seeds.append(saved(gradient(), "TIFF", compression="tiff_lzw"))
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


def test_nothing_global_is_changed():
    limit = Image.MAX_IMAGE_PIXELS
    read_image(PNG)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_ids_tell_pictures_apart():
    one, two = np.zeros((2, 8, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)
    assert image_id(Image.fromarray(one)) != image_id(Image.fromarray(two))
    assert image_id(gradient()) == image_id(read_image(PNG))
