"""DICOM files come out as a viewer shows them, and give away nothing but the picture."""

import io
import struct
import warnings

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut
from pydicom.uid import (
    JPEGLosslessSV1,
)

from medssl.errors import ImageError
from medssl.images import dicom as dicom_room
from medssl.images.read import image_id, read_image
from tests.pictures import DEFLATED, RAMP, dicom, encapsulated, gradient, shipped

# Damaged files make Pillow and pydicom warn; what is tested is what comes out.
pytestmark = pytest.mark.filterwarnings("ignore")


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
    color = np.asarray(gradient(8, 8))
    rgb = dicom(
        np.zeros((8, 8), np.uint8),
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        PixelData=color.tobytes(),
    )
    assert np.array_equal(read_image(rgb), color)


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


def test_an_undecodable_syntax_is_named_with_the_package():
    with pytest.raises(ImageError, match="JPEG Lossless.*python-gdcm"):
        read_image(dicom(RAMP, TransferSyntaxUID=JPEGLosslessSV1, PixelData=encapsulated()))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_functions_are_those_of_pydicom(function):
    data = dicom(RAMP, WindowCenter=[1500, 9], WindowWidth=[900, 9], VOILUTFunction=function)
    expected = apply_voi_lut(RAMP, dcmread(io.BytesIO(data))) / 65535 * 255
    assert np.abs(np.asarray(read_image(data))[..., 0] - expected).max() <= 0.51


def test_a_window_without_width_and_padding_leave_the_percentiles():
    plain = read_image(dicom(RAMP))
    assert np.array_equal(read_image(dicom(RAMP, WindowCenter=100, WindowWidth=0)), plain)
    padded = RAMP.astype(np.int16)
    padded[:8] = -20000
    assert np.asarray(read_image(dicom(padded, PixelPaddingValue=-20000)))[40, 0, 0] < 170
    assert np.asarray(read_image(dicom(padded)))[40, 0, 0] > 200


def test_a_voi_lut_sequence_inverts_where_it_says_so():
    table = Dataset()
    table.LUTDescriptor = [256, 0, 8]
    table.LUTData = struct.pack("<256H", *range(255, -1, -1))
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = np.asarray(read_image(dicom(values, VOILUTSequence=[table])))[..., 0]
    assert np.array_equal(found, 255 - values)


def test_an_enhanced_file_has_its_window_a_frame():
    groups = []
    for center in (500, 3500):
        window, group = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = center, 500
        group.FrameVOILUTSequence = [window]
        groups.append(group)
    data = dicom(np.stack([RAMP, RAMP]), PerFrameFunctionalGroupsSequence=groups)
    low, high = (np.asarray(read_image(data, frame=index)).mean() for index in (0, 1))
    assert low > 200 and high < 50


@pytest.mark.parametrize("kind", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "padded"])
def test_the_same_scan_in_every_syntax(kind):
    assert np.array_equal(read_image(shipped(f"MR_small_{kind}.dcm")), read_image(shipped("MR_small.dcm")))


@pytest.mark.parametrize("kind", ["16bit", "32bit", "16bit_2frame", "2frame"])
def test_color_of_more_bits_is_the_same_picture(kind):
    assert np.array_equal(read_image(shipped(f"SC_rgb_rle_{kind}.dcm")), read_image(shipped("SC_rgb_rle.dcm")))


@pytest.mark.parametrize(
    "name", ["SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_ybr_full_422_uncompressed.dcm"]
)
def test_ybr_comes_out_as_rgb(name):
    found = np.asarray(read_image(shipped(name)), int)
    assert found[5, 50, 0] > 240 and found[5, 50, 1:].max() < 20, "the first bar is red"


def test_a_deflated_bomb_is_refused_before_it_unpacks(monkeypatch):
    assert np.array_equal(read_image(DEFLATED), read_image(dicom(RAMP)))
    monkeypatch.setattr(dicom_room, "MAX_INFLATED", 4000)
    monkeypatch.setattr(dicom_room, "read_dataset", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(ImageError, match="unpacks to more than"):
        read_image(DEFLATED)


def test_no_name_of_a_patient_reaches_a_warning_a_log_or_an_error(caplog):
    good = dicom(RAMP).replace(b"Doe^Jane", b"Doe\x00Jane")
    with warnings.catch_warnings(record=True) as seen, caplog.at_level("INFO"):
        warnings.simplefilter("always")
        read_image(good)
        for cut in range(140, len(good), 97):
            try:
                read_image(good[:cut])
            except ImageError as error:
                assert "Jane" not in str(error) and "Jane" not in str(error.__cause__)
    assert not [entry for entry in (*map(str, seen), caplog.text) if "Jane" in entry]
