"""Files that were once read wrongly without a word: every kind, with its right values."""

import io
import struct
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from medssl.errors import ImageError
from medssl.images import Picture, frame_count, read_image
from medssl.images.codestream import read_codestream
from tests.images import shared_inputs

SHADES = [round(value * 255 / 127) for value in range(128)]
RAMP = np.tile(np.arange(128, dtype=np.uint16), (16, 1))  # columns 0 to 127


def gray(source, **options) -> np.ndarray:
    return np.asarray(read_image(source, **options))[..., 0].astype(int)


def dicom(values: np.ndarray, syntax: str = ExplicitVRLittleEndian, data: bytes | None = None, **tags) -> bytes:
    """A DICOM file of those stored words, with other tags set or (None) left out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    bits = 8 * values.dtype.itemsize
    settings = {
        "Rows": values.shape[0], "Columns": values.shape[1], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1,
        "PixelRepresentation": int(values.dtype.kind == "i"), **tags,
    }  # fmt: skip
    for name, value in settings.items():
        if value is not None:
            setattr(dataset, name, value)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset.PixelData = data if data is not None else values.astype(values.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OB" if data is not None or bits == 8 else "OW"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def lut(table, bits, first=0, entries=None, vr="US") -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(table) if entries is None else entries, first, bits])
    item.add_new("LUTData", vr, table if vr == "US" else bytes(table))
    return [item]


def tiff(values: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


# Greys of picture files


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "f4", "f8", "i2"])
def test_white_is_zero_at_every_depth(kind, order):
    ramp = np.tile(np.linspace(0, 250, 96), (8, 1)).astype(kind)
    black, white = (gray(tiff(ramp, photometric=name, byteorder=order)) for name in ("minisblack", "miniswhite"))
    assert black[0, 0] < 5 and black[0, -1] >= 250 and white[0, 0] >= 250 and white[0, -1] <= 5
    assert np.abs(black + white - 255).max() <= 2 if kind != "u1" else (black + white == 255).all()


@pytest.mark.parametrize("bits", [1, 8])
def test_white_is_zero_of_few_bits(bits):
    array = np.zeros((8, 16), np.uint8 if bits == 8 else bool)
    array[:, 8:] = 200 if bits == 8 else True
    found = gray(tiff(array, photometric="miniswhite"))
    assert found[0, 0] == 255 and found[0, -1] == (55 if bits == 8 else 0)


def test_lzw_compressed_white_is_zero():
    """A codec that Pillow has and tifffile alone has not."""
    ramp = np.tile(np.linspace(0, 4000, 96).astype(np.uint16), (8, 1))
    stream = io.BytesIO()
    Image.fromarray(ramp).save(stream, "TIFF", compression="tiff_lzw", tiffinfo={262: 0})
    found = gray(stream.getvalue())
    assert found[0, 0] >= 250 and found[0, -1] <= 5


@pytest.mark.parametrize("kind", ["u4", "i1", "i4", "f4"])
def test_wide_and_signed_tiff_rise_with_their_numbers(kind):
    low, high = (-100, 100) if kind[0] != "u" else (1, 4_000_000_000)
    found = gray(tiff(np.tile(np.linspace(low, high, 64).astype(kind), (8, 1))))
    assert (np.diff(found[0]) >= 0).all() and found[0, 0] < 5 and found[0, -1] > 250


@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_color_in_planes_or_pixels(kind, layout):
    factor = 257 if kind == "u2" else 1
    color = np.zeros((20, 30, 3), kind)
    color[:] = np.array([40, 128, 60]) * factor
    data = np.moveaxis(color, -1, 0) if layout == "separate" else color
    found = np.asarray(read_image(tiff(data, photometric="rgb", planarconfig=layout)))
    assert found.shape == (20, 30, 3) and np.abs(found[7, 9].astype(int) - [40, 128, 60]).max() <= 1


def png16(values) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.asarray(values, np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def test_no_jump_at_half_range_or_anywhere():
    tops = np.r_[np.arange(30000, 36001, 200), np.arange(36000, 65536, 1500)]
    means = [gray(png16(np.tile(np.linspace(0, top, 256), (8, 1)))).mean() for top in tops]
    assert np.abs(np.diff(means)).max() < 0.02 * 255


def test_pages_are_known_and_chosen():
    pages = np.stack([np.full((8, 9), value, np.uint8) for value in (10, 200, 90)])
    data = tiff(pages, photometric="minisblack")
    assert frame_count(data) == 3
    assert [int(gray(data, frame=page).mean()) for page in range(3)] == [10, 200, 90]
    assert "holds 3 pictures" in Picture.read(data).notes[0] and Picture.read(data, frame=2).notes == ()
    with pytest.raises(ImageError, match="no page 3; this TIFF file has 3"):
        read_image(data, frame=3)


def profile_of(name: str) -> bytes:
    """A profile whose red and green are exchanged against sRGB's: a strange one, told apart by eye."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = (profile.find(tag, 128) for tag in (b"rXYZ", b"gXYZ"))
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    description = profile.find("sRGB".encode("utf-16-be"))
    while description >= 0:
        profile[description : description + 8] = name.encode("utf-16-be")
        description = profile.find("sRGB".encode("utf-16-be"))
    return bytes(profile)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_color_profiles_are_converted(kind):
    red = Image.new("RGB", (16, 16), (250, 0, 0))
    stream = io.BytesIO()
    red.save(stream, kind, icc_profile=profile_of("odd!"))
    found = np.asarray(read_image(stream.getvalue()))[8, 8]
    assert found[1] > 240 and found[0] < 20
    for harmless in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"no profile"):
        stream = io.BytesIO()
        red.save(stream, "PNG", icc_profile=harmless)
        np.testing.assert_array_equal(np.asarray(read_image(stream.getvalue())), np.asarray(red))


def rle4(absolute: bool) -> tuple[bytes, np.ndarray]:
    """A 4-bit bitmap in run lengths or literal runs, and its indices from the top row on."""
    indices = np.array([[1, 1, 1, 1, 2, 2, 3], [0, 3, 0, 3, 1, 1, 2]])
    lines = []
    for row in indices[::-1]:
        if absolute:
            padded = np.r_[row, [0] * (8 - len(row))]
            lines.append(bytes([0, 7, *(padded[::2] << 4 | padded[1::2]).astype(np.uint8)]))
        else:
            lines.append(b"".join(bytes([1, value << 4]) for value in row))
    body = bytes([0, 0]).join(lines) + bytes([0, 1])
    palette = bytes([0, 0, 0, 0, 0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0])
    header = struct.pack("<IiiHHIIiiII", 40, 7, 2, 1, 4, 2, len(body), 0, 0, 4, 0)
    start = 14 + len(header) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + header + palette + body, indices


@pytest.mark.parametrize("absolute", [False, True])
def test_run_length_bitmaps(absolute):
    data, indices = rle4(absolute)
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    np.testing.assert_array_equal(np.asarray(read_image(data)), colors[indices])
    with pytest.raises(ImageError, match="damaged"):
        read_image(data[:-6])


# DICOM


def test_eight_bits_without_a_window_are_shown_as_stored():
    found = gray(dicom(np.array([[0, 60], [100, 255]], np.uint8)))
    assert found.tolist() == [[0, 60], [100, 255]]
    five = gray(dicom(np.array([[0, 15], [7, 31]], np.uint8), BitsStored=5, HighBit=4))
    assert five.tolist() == [[0, 123], [58, 255]]


@pytest.mark.parametrize(
    "tables",
    [
        lut(SHADES, 8),
        lut(SHADES, 8, vr="OW"),
        lut([SHADES[2 * i] | SHADES[2 * i + 1] << 8 for i in range(64)], 8, entries=128),
        lut([round(i * 65535 / 127) for i in range(128)], 16),
        lut([round(i * 4095 / 127) for i in range(128)], 16),
        lut([round(i * 4095 / 127) for i in range(128)], 12),
    ],
)  # fmt: skip
def test_lookup_tables_of_every_layout(tables):
    found = gray(dicom(RAMP, BitsStored=12, HighBit=11, VOILUTSequence=tables))
    np.testing.assert_allclose(found[0], np.arange(128) * 255 / 127, atol=1.01)


def test_a_descriptor_that_was_written_unsigned_for_signed_values():
    values = RAMP.astype(np.int16) - 64
    tables = lut(SHADES, 8, first=65536 - 64)
    found = gray(dicom(values, VOILUTSequence=tables))
    np.testing.assert_allclose(found[0], np.arange(128) * 255 / 127, atol=1.01)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("high", [11, 13, 15])
def test_bits_above_or_below_the_stored_ones(high, syntax):
    shift = high - 11
    junk = np.full_like(RAMP, (1 << shift) - 1) | (0xF << (high + 1) & 0xFFFF)
    words = ((RAMP * 32) << shift | junk).astype(np.uint16)
    tags = {"BitsStored": 12, "HighBit": high, "WindowCenter": "2048", "WindowWidth": "4096"}
    found = gray(dicom(words, syntax, **tags))
    np.testing.assert_allclose(found[0], np.arange(128) * 32 * 255 / 4095, atol=1.5)


def test_signed_values_under_an_overlay():
    values = (RAMP.astype(np.int16) - 64) * 32
    words = ((values.view(np.uint16) & 0x0FFF) | 0x8000).view(np.int16)
    found = gray(dicom(words, BitsStored=12, HighBit=11, WindowCenter="0", WindowWidth="4096"))
    np.testing.assert_allclose(found[0], (np.arange(128) * 32) * 255 / 4095, atol=1.5)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_overlay_bits_in_compressed_frames(syntax):
    words = (RAMP * 32 | 0x8000).astype(np.uint16)
    tags = {"BitsStored": 12, "HighBit": 11, "WindowCenter": "2048", "WindowWidth": "4096"}
    if syntax == JPEG2000Lossless:
        stream = io.BytesIO()
        Image.fromarray(words).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
        assert read_codestream(stream.getvalue()).precision == 16
        data = dicom(words, syntax, encapsulate([stream.getvalue()]), **tags)
    else:
        from pydicom.pixels.encoders import RLELosslessEncoder

        frame = RLELosslessEncoder.encode(
            words.tobytes(), rows=16, columns=128, samples_per_pixel=1, bits_allocated=16, bits_stored=16,
            pixel_representation=0, number_of_frames=1, photometric_interpretation="MONOCHROME2",
        )  # fmt: skip
        data = dicom(words, syntax, encapsulate([frame]), **tags)
    np.testing.assert_allclose(gray(data)[0], np.arange(128) * 32 * 255 / 4095, atol=1.5)


def test_a_slope_of_zero_is_ignored():
    found = gray(dicom(RAMP, RescaleSlope="0", RescaleIntercept="0"))
    assert (np.diff(found[0]) >= 0).all() and found.max() == 255


@pytest.mark.parametrize("text", [b"64,0", b"64.0", b" 64,0 "])
def test_decimal_commas(text):
    data = dicom(RAMP, WindowCenter="11.1", WindowWidth="128")
    found = gray(data.replace(b"11.1", text.ljust(4)[:4]))
    assert found[0, 0] == 0 and abs(found[0, 64] - 128) <= 2


def test_what_makers_leave_out():
    expected = gray(dicom(RAMP, WindowCenter="64", WindowWidth="128"))
    for left_out in ("SamplesPerPixel", "PixelRepresentation", "HighBit", "PhotometricInterpretation", "BitsStored"):
        found = gray(dicom(RAMP, WindowCenter="64", WindowWidth="128", **{left_out: None}))
        np.testing.assert_array_equal(found, expected)
    upside_down = gray(dicom(RAMP, WindowCenter="64", WindowWidth="128", PhotometricInterpretation="Monochrome1"))
    np.testing.assert_array_equal(upside_down, 255 - expected)


def test_frames_are_known_and_chosen():
    frames = np.stack([np.full((8, 8), value, np.uint8) for value in (10, 200)])
    data = dicom(frames.reshape(16, 8), Rows=8, NumberOfFrames=2)
    assert frame_count(data) == 2 and [int(gray(data, frame=f).mean()) for f in (0, 1)] == [10, 200]
    assert "holds 2 pictures" in Picture.read(data).notes[0]
    assert frame_count(dicom(RAMP)) == 1 and Picture.read(dicom(RAMP)).notes == ()


@pytest.mark.parametrize(
    ("syntax", "name", "promise"),
    [
        ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless", None),
        ("1.2.840.10008.1.2.4.112", "JPEG XL", None),
        ("1.2.840.10008.1.2.8.1", "Deflated Image Frame", None),
        ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000", "pylibjpeg-openjpeg"),
        ("1.2.840.10008.1.2.4.70", "JPEG Lossless", "python-gdcm"),
        ("1.2.840.10008.1.2.4.80", "JPEG-LS", "python-gdcm"),
        ("1.2.840.10008.1.2.4.53", "JPEG Spectral Selection", None),
        ("1.2.840.10008.1.2.4.102", "MPEG-4", None),
    ],
)
def test_refusals_name_the_syntax_and_only_a_package_that_reads_it(syntax, name, promise):
    if name == "JPEG-LS" and find_spec("jpeg_ls"):
        pytest.skip("jpeg_ls, which comes with highdicom, reads this syntax")
    known = "1.2.840.10008.1.2.4.50" if len(syntax) < 23 else "1.2.840.10008.1.2.4.100"
    data = dicom(RAMP, known, encapsulate([b"\xff\xd8\xff\xd9"]))
    written = syntax.encode().ljust(len(known) + len(known) % 2, b"\0")
    with pytest.raises(ImageError) as caught:
        read_image(data.replace(known.encode().ljust(len(written), b"\0"), written))
    said = str(caught.value)
    assert name in said and syntax in said and "damaged" not in said
    assert ("Install the package" in said) == (promise is not None) and (promise or "") in said


def test_twelve_bit_jpeg_is_named():
    frame = b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x10\x00\x80\x01\x01\x11\x00\xff\xd9"
    with pytest.raises(ImageError, match="JPEG Extended.*with 12 bits a sample"):
        read_image(dicom(RAMP, "1.2.840.10008.1.2.4.51", encapsulate([frame]), BitsStored=12, HighBit=11))


# Files made to harm: refused in a moment, without unpacking what they hide


def bomb(meta: bytes, syntax: bytes = b"1.2.840.10008.1.2.1.99") -> bytes:
    """A deflated file that unpacks to 300 MB, behind further meta elements."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = b"".join(packer.compress(b"\0" * 2**20) for _ in range(300)) + packer.flush()
    syntax += b"\0" * (len(syntax) % 2)
    uid = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(syntax)) + syntax
    return b"\0" * 128 + b"DICM" + meta + uid + body


@pytest.mark.parametrize("vr", [b"OD", b"OL", b"OV", b"SV", b"UC", b"UR", b"UV"])
def test_a_bomb_behind_a_meta_element_of_any_kind(vr):
    meta = b"\x02\x00\x02\x01" + vr + b"\0\0" + struct.pack("<I", 8) + b"12345678"
    with pytest.raises(ImageError, match="unpacks to more than|damaged"):
        read_image(bomb(meta))


@pytest.mark.parametrize("syntax", [b" 1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1.99 ", b"1.2.840.10008.1.2.1.99"])
def test_a_bomb_under_a_syntax_with_blanks(syntax):
    with pytest.raises(ImageError, match="unpacks to more than|damaged"):
        read_image(bomb(b"", syntax))


def test_millions_of_items_are_refused_before_they_are_parsed():
    item = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
    sequence = b"\x00\x52\x30\x92SQ\0\0" + struct.pack("<I", 8 * 2_000_000) + item * 2_000_000
    whole = dicom(RAMP)
    place = whole.index(b"\xe0\x7f\x10\x00")
    with pytest.raises(ImageError, match="more than 100000 sequence items"):
        read_image(whole[:place] + sequence + whole[place:])


def test_millions_of_elements_are_refused():
    many = b"".join(struct.pack("<HH2sH", 0x0011, i, b"LO", 0) for i in range(16, 65000)) * 3
    whole = dicom(RAMP)
    place = whole.index(b"\x28\x00")
    with pytest.raises(ImageError, match="more than 100000 elements|damaged"):
        read_image(whole[:place] + many + whole[place:])


# The files that were found, where they are at hand


@pytest.mark.parametrize(
    ("name", "row", "column", "value"),
    [
        ("miniswhite16.tif", 5, 5, 242), ("miniswhite16.tif", 5, 90, 13), ("sc8.dcm", 61, 61, 255),
        ("sc8.dcm", 64, 50, 60), ("vlut8.dcm", 5, 64, 128), ("vlut8.dcm", 5, 120, 241),
        ("highbit15.dcm", 5, 64, 128), ("overlay_j2k.dcm", 64, 64, 128), ("tf_rgb16_planar.tif", 48, 20, 40),
    ],
)  # fmt: skip
def test_shared_files(name, row, column, value):
    assert gray(shared_inputs() / name)[row, column] == value


@pytest.mark.parametrize("name", ["vlut8_ow_packed.dcm", "slope0.dcm", "win_comma.dcm", "no_spp.dcm"])
def test_shared_ramps(name):
    found = gray(shared_inputs() / name)[5]
    assert (np.diff(found) >= 0).all() or (np.diff(found) <= 0).all()
    assert np.ptp(found) > 250


def test_shared_frames_and_tables():
    assert gray(shared_inputs() / "vlut16_holds12.dcm").max() == 255
    assert frame_count(shared_inputs() / "enh3.dcm") == 3 and frame_count(shared_inputs() / "multipage.tif") == 2
    means = [gray(shared_inputs() / f"png16_{top}.png").mean() for top in (32760, 32800)]
    assert abs(means[0] - means[1]) < 0.02 * 255
    assert read_image(shared_inputs() / "pal4rle.bmp").size == (127, 64)
