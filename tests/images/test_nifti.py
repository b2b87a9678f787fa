"""NIfTI volumes: one picture whatever the file's orientation, the finest grid, one window, nothing more decoded."""

import gzip
import itertools

import nibabel
import numpy as np
import pytest

from medssl.errors import ImageError
from medssl.images import Picture, frame_count, read_image
from medssl.images.nifti import Volume, is_nifti

AFFINE = np.array([[1.0, 0, 0, -5], [0, 1.2, 0, 3], [0, 0, 3, 8], [0, 0, 0, 1]])
VALUES = np.random.default_rng(0).normal(100, 30, (11, 9, 5)).astype(np.int16)
WHOLE = nibabel.Nifti1Image(VALUES, AFFINE)
ORIENTATIONS = [
    np.array(list(zip(order, signs, strict=True)))
    for order in itertools.permutations(range(3))
    for signs in itertools.product([1, -1], repeat=3)
]


def slices(data, plane=None):
    volume = Volume(data, plane)
    return np.stack([np.asarray(volume.image(number))[..., 0] for number in range(volume.count)])


def with_window(low, high):
    image = nibabel.Nifti1Image(VALUES, AFFINE)
    image.header["cal_min"], image.header["cal_max"] = low, high
    return image.to_bytes()


def test_each_of_the_48_orientations_gives_the_same_pictures():
    expected = slices(WHOLE.to_bytes())
    assert len(ORIENTATIONS) == 48
    for orientation in ORIENTATIONS:
        turned = WHOLE.as_reoriented(orientation).to_bytes()
        np.testing.assert_array_equal(slices(turned), expected, str(orientation))


def test_slices_show_the_finest_grid_with_the_patients_right_at_the_left_and_the_front_at_the_top():
    low, high = VALUES.min(), VALUES.max()
    found = slices(with_window(low, high))
    plain = (VALUES.astype(float) - low) / (high - low)
    expected = np.round(255 * plain[::-1, ::-1].transpose(2, 1, 0))
    np.testing.assert_array_equal(found, expected)
    assert Volume(WHOLE.to_bytes()).plane == "axial"
    coarse_front = nibabel.Nifti1Image(VALUES, np.diag([1.0, 4, 1, 1]))
    assert Volume(coarse_front.to_bytes()).plane == "coronal" and slices(coarse_front.to_bytes()).shape == (9, 5, 11)


@pytest.mark.parametrize(("plane", "shape"), [("axial", (5, 9, 11)), ("coronal", (9, 5, 11)), ("sagittal", (11, 5, 9))])
def test_a_plane_can_be_asked_for(plane, shape):
    assert slices(WHOLE.to_bytes(), plane).shape == shape


def test_a_window_of_the_file_counts_else_percentiles_of_the_whole_volume():
    windowed = slices(with_window(90, 110))
    assert ((windowed == 0) == (VALUES[::-1, ::-1].transpose(2, 1, 0) <= 90)).all()
    ramp = np.zeros((8, 8, 4), np.float32)
    ramp[..., 1], ramp[..., 2], ramp[..., 3] = 10, 20, 30
    found = slices(nibabel.Nifti1Image(ramp, AFFINE).to_bytes())
    assert [int(one.mean()) for one in found] == [0, 85, 170, 255], "each slice by itself would be one grey"


def test_time_points_follow_each_other_and_pictures_of_two_axes_are_one_slice():
    moving = np.random.default_rng(1).normal(size=(4, 5, 6, 7)).astype(np.float32)
    data = nibabel.Nifti1Image(moving, AFFINE).to_bytes()
    still = Volume(nibabel.Nifti1Image(moving[..., 2], AFFINE).to_bytes())
    volume = Volume(data)
    assert volume.count == 42 and volume._values(2 * 6 + 4).tolist() == still._values(4).tolist()
    assert Volume(nibabel.Nifti1Image(moving[:, :, 0, 0], AFFINE).to_bytes()).count == 1


def test_color_is_color_and_version_2_is_read():
    colors = np.zeros((4, 5, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colors["R"] = 200
    assert Volume(nibabel.Nifti1Image(colors, AFFINE).to_bytes()).image(1).getpixel((0, 0)) == (200, 0, 0)
    data = nibabel.Nifti2Image(VALUES, AFFINE).to_bytes()
    assert is_nifti(data)
    np.testing.assert_array_equal(slices(data), slices(WHOLE.to_bytes()))


def test_one_number_is_chosen_and_how_many_there_are_is_said():
    packed = gzip.compress(WHOLE.to_bytes())
    assert frame_count(packed) == 5
    unasked = Picture.read(packed)
    assert (unasked.frame, unasked.frames) == (2, 5)
    assert "holds 5 axial slices; the middle one (number 2" in unasked.notes[0]
    assert Picture.read(packed, frame=4).frame == 4 and Picture.read(packed, frame=4).notes == ()
    assert read_image(packed, frame=4) == Volume(packed).image(4)
    with pytest.raises(ImageError, match="no slice 5; this NIfTI file has 5"):
        read_image(packed, frame=5)


def test_a_volume_that_does_not_say_how_it_lies_is_shown_as_stored_and_said():
    image = nibabel.Nifti1Image(VALUES, None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    assert "does not say how the body lies" in Picture.read(image.to_bytes()).notes[1]


def zeros(count):
    return gzip.compress(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), AFFINE).to_bytes() + b"\0" * count)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (WHOLE.to_bytes()[:600], "damaged"),
        (WHOLE.to_bytes()[:348] , "damaged"),
        (gzip.compress(WHOLE.to_bytes())[:500], "damaged"),
        (zeros(300 * 2**20), "unpacks to more than 200 MB"),
        (nibabel.Nifti1Image(np.zeros((4, 4, 4), np.complex64), AFFINE).to_bytes(), "complex"),
        (nibabel.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), AFFINE).to_bytes(), "no finite value"),
        (nibabel.Nifti1Pair(VALUES, AFFINE).header.binaryblock, "without its volume"),
        (gzip.compress(b"a letter" * 100), "gzip"),
    ],
    ids=["cut off", "header alone", "gzip cut off", "bomb", "complex", "nothing finite", "pair", "another gzip"],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_a_sentence(data, said):
    with pytest.raises(ImageError, match=said):
        read_image(data)


@pytest.mark.parametrize("field", ["dim", "pixdim", "datatype", "vox_offset", "magic", "srow_x", "bitpix"])
def test_a_header_of_noise_is_an_image_or_one_sentence(field):
    """Every field overwritten with what it should not hold."""
    for value in (0, 1, 127, 255):
        data = bytearray(WHOLE.to_bytes())
        template = nibabel.Nifti1Header.template_dtype
        start, size = template.fields[field][1], template.fields[field][0].itemsize
        data[start : start + size] = bytes([value]) * size
        try:
            assert read_image(bytes(data)).mode == "RGB"
        except ImageError as error:
            assert str(error)
