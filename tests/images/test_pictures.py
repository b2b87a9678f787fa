"""Many pictures as one sequence: series in order, missing slices said, harmful zips refused, one decoded at a time."""

import gzip
import io
import stat
import tracemalloc
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import generate_uid

from medssl.errors import ImageError
from medssl.images import Picture, frame_count, read_image, read_images
from medssl.images.safe_reader import SafeReader
from tests.images import shared_inputs
from tests.pictures import PNG, dicom, gradient, saved, shipped

AXIAL, CORONAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]
FIRST, SECOND = (generate_uid(entropy_srcs=[name]) for name in ("first", "second"))


def one_slice(value, place, series=FIRST, number=1, directions=AXIAL, **tags):
    """A DICOM slice of one grey, at a place along its normal."""
    normal = np.cross(directions[:3], directions[3:])
    corner = [float(x) for x in normal * place]
    places = {"ImagePositionPatient": corner, "ImageOrientationPatient": directions}
    settings = {"SeriesInstanceUID": series, "InstanceNumber": number, **places, **tags}
    return dicom(np.full((8, 8), value, np.uint8), **{k: v for k, v in settings.items() if v is not None})


def zipped(files, **options):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def grays(pictures):
    return [int(np.asarray(picture.image).mean()) for picture in pictures]


def shuffled(places, **tags):
    """Slices whose greys are ten times their place, under names and instance numbers in another order."""
    order = np.random.default_rng(0).permutation(len(places))
    return {
        f"im{at:02d}.dcm": one_slice(10 * int(places[row]), places[row], number=50 - at, **tags)
        for at, row in enumerate(order)
    }


@pytest.mark.parametrize("directions", [AXIAL, CORONAL])
def test_a_series_is_ordered_by_where_its_slices_lie(tmp_path, directions):
    files = shuffled(range(1, 13), directions=directions)
    expected = [10 * place for place in range(1, 13)]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for source in (tmp_path, zipped(files), sorted(tmp_path.iterdir())):
        found = read_images(source)
        assert grays(found) == expected and found.notes == ()
        assert {entry.series for entry in found.entries} == {"series 1"}


def test_two_series_mixed_and_a_localizer_are_told_apart():
    first, second = shuffled(range(1, 6)), shuffled(range(11, 15), series=SECOND)
    mixed = {f"{number}/{name}": data for number, part in enumerate((first, second)) for name, data in part.items()}
    mixed |= {"2/b.dcm": one_slice(7, 3, directions=CORONAL), "2/a.dcm": one_slice(9, 5, directions=CORONAL)}
    found = read_images(zipped(mixed))
    by_series = {}
    for entry, gray in zip(found.entries, grays(found), strict=True):
        by_series.setdefault(entry.series, []).append(gray)
    assert sorted(by_series.values()) == [[7, 9], [10, 20, 30, 40, 50], [110, 120, 130, 140]]
    assert found.notes[0].startswith("3 series were told apart")


def test_a_missing_slice_is_said_and_even_ones_are_not():
    places = [place for place in range(1, 14) if place not in (6, 9, 10)]
    notes = read_images(zipped(shuffled(places))).notes
    assert [note.split(" (")[0] for note in notes] == [
        "Series 1: 1 missing between slice 4 and 5",
        "Series 1: 2 missing between slice 6 and 7",
    ]
    assert "2.0 mm apart, others 1.0 mm" in notes[0]


def test_without_places_the_instance_number_counts_and_it_is_said():
    files = {f"{name}.dcm": one_slice(10 * number, 0, number=number, ImagePositionPatient=None) for name, number in
             zip("cab", (2, 3, 10), strict=True)}  # fmt: skip
    found = read_images(zipped({name: data for name, data in files.items()}))
    assert grays(found) == [20, 30, 100] and "does not say where" in found.notes[0]


def test_pydicoms_own_series(tmp_path):
    root = Path(shipped("CT_small.dcm")).parent / "dicomdirtests" / "98892001"
    found = read_images(root)
    sizes = {}
    for entry in found.entries:
        sizes[entry.series] = sizes.get(entry.series, 0) + 1
    assert len(found) == 7 and sizes == {"series 1": 2, "series 2": 5}
    for picture, entry in zip(found, found.entries, strict=True):
        assert picture.name == entry.file and picture.image == read_image(root / entry.file)


def frames_of(kind):
    if kind == "DICOM":
        return dicom(np.stack([np.full((8, 8), value, np.uint8) for value in (10, 90, 200)]))
    pictures = [Image.new("RGB", (8, 8), (value,) * 3) for value in (10, 90, 200)]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    return saved(pictures[0], kind, save_all=True, append_images=pictures[1:], **lossless)


@pytest.mark.parametrize("kind", ["DICOM", "TIFF", "PNG", "WEBP"])
def test_every_frame_is_known_said_and_chosen(kind):
    data = frames_of(kind)
    assert frame_count(data) == 3 and grays(read_images(data)) == [10, 90, 200]
    assert [int(np.asarray(read_image(data, frame=number)).mean()) for number in range(3)] == [10, 90, 200]
    first = Picture.read(data)
    assert (first.frame, first.frames) == (0, 3) and "holds 3 pictures; the first is shown" in first.notes[0]
    assert [(picture.frame, picture.frames) for picture in read_images(data)] == [(0, 3), (1, 3), (2, 3)]
    with pytest.raises(ImageError, match="There is no"):
        read_image(data, frame=3)


@pytest.mark.parametrize("name", ["rtdose.dcm", "SC_rgb_rle_2frame.dcm", "examples_ybr_color.dcm"])
def test_pydicoms_multi_frame_files(name):
    path = shipped(name)
    found = read_images(path)
    assert len(found) == frame_count(path) > 1
    assert found[len(found) - 1].image == read_image(path, frame=len(found) - 1)


@pytest.mark.parametrize(("name", "count"), [("enh3.dcm", 3), ("multipage.tif", 2)])
def test_inputs_that_were_read_as_one_picture(name, count):
    found = read_images(shared_inputs() / name)
    assert len(found) == count and len({picture.id for picture in found}) == count


def test_a_folder_of_anything(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.png").write_bytes(PNG)
    (tmp_path / "a.tif").write_bytes(frames_of("TIFF"))
    (tmp_path / "metadata.csv").write_text("file_name,label\n")
    (tmp_path / ".hidden.png").write_bytes(PNG)
    (tmp_path / "c.png").write_bytes(b"no picture")
    found = read_images(tmp_path)
    assert [entry.title for entry in found.entries] == ["a.tif [0]", "a.tif [1]", "a.tif [2]", "c.png", "more/b.png"]
    assert found.notes == ("Left out, as they hold no picture: 2 files (.hidden.png, metadata.csv).",)
    assert found[4].image == gradient()
    with pytest.raises(ImageError, match="not an image"):
        found[3]


def test_equal_names_of_several_uploads_stay_apart(tmp_path):
    paths = []
    for number, value in enumerate((10, 200)):
        (tmp_path / str(number)).mkdir()
        paths.append(tmp_path / str(number) / "x.png")
        paths[-1].write_bytes(saved(Image.new("RGB", (8, 8), (value,) * 3), "PNG"))
    found = read_images(paths)
    assert [entry.file for entry in found.entries] == ["x.png", "x (2).png"] and grays(found) == [10, 200]


def test_a_zip_of_300_slices_is_read_with_progress_and_one_picture_at_a_time():
    files = {f"{place:03d}.dcm": one_slice(place % 250, place) for place in range(300)}
    told = []
    found = read_images(zipped(files), progress=lambda share, text: told.append((share, text)))
    assert len(found) == 300 and len(told) == 300 and told[-1][1] == "Looking at file 300 of 300"
    assert grays(found) == [place % 250 for place in range(300)]


def test_no_more_than_one_picture_is_held():
    """A volume of 60 slices of 3 MB each as pictures."""
    data = gzip.compress(nibabel.Nifti1Image(np.zeros((1000, 1000, 60), np.uint8), np.diag([1, 1, 3, 1])).to_bytes())
    found = read_images(data)
    tracemalloc.start()
    found[0]
    tracemalloc.reset_peak()
    for _ in found:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 62 * 2**20 + 40 * 2**20, "the volume's bytes and a few pictures, not 60"


def link():
    entry = zipfile.ZipInfo("link.png")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    return stream.getvalue()


def locked():
    data = bytearray(zipped({"a.png": PNG}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


HARMFUL = {
    "bomb of one file": (lambda: zipped({"a.dcm": b"\0" * (300 * 2**20)}), "unpacks to 300 MB"),
    "bomb of many files": (lambda: zipped({f"{n}.dcm": b"\0" * (20 * 2**20) for n in range(60)}), "unpacks to"),
    "path upwards": (lambda: zipped({"../../a.png": PNG}), "leads out"),
    "absolute path": (lambda: zipped({"/etc/a.png": PNG}), "leads out"),
    "drive": (lambda: zipped({"C:\\a.png": PNG}), "leads out"),
    "link": (link, "links"),
    "password": (locked, "password"),
    "too many files": (lambda: zipped({f"{n}.png": b"" for n in range(10_001)}), "10001 files"),
    "cut off": (lambda: zipped({"a.png": PNG})[:-30], "damaged or cut off"),
    "empty": (lambda: zipped({"readme.txt": b"x", "b.csv": b"y"}), "no image"),
}


@pytest.fixture(scope="module")
def reader():
    made = SafeReader(children=1)
    yield made
    made.close()


@pytest.mark.parametrize("name", HARMFUL)
def test_a_harmful_zip_is_refused_in_a_sentence(name, reader, tmp_path):
    make, said = HARMFUL[name]
    data = make()
    with pytest.raises(ImageError, match=said) as here:
        read_images(data)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ImageError) as there:
        reader.read_many([tmp_path / "a.zip"])
    assert str(there.value) == str(here.value)


def test_a_file_of_a_zip_over_the_limit_is_refused_by_itself(tmp_path):
    noise = np.random.default_rng(0).bytes(51 * 2**20)
    (tmp_path / "a.zip").write_bytes(zipped({"a.png": PNG, "b.dcm": noise}))
    found = read_images(tmp_path / "a.zip")
    assert found[0].image == gradient()
    with pytest.raises(ImageError, match="51 MB; at most 50 MB"):
        found[1]


def test_many_uploads_are_read_in_the_child_as_in_this_process(reader, tmp_path):
    paths = [tmp_path / "series.zip", tmp_path / "three.tif", tmp_path / "bad.png"]
    for path, data in zip(paths, (zipped(shuffled(range(1, 6))), frames_of("TIFF"), b"no picture"), strict=True):
        path.write_bytes(data)
    here, there = read_images(paths), reader.read_many(paths)
    assert there.entries == here.entries and there.notes == here.notes
    assert grays(there[:-1]) == grays(here[:-1]) == [10, 20, 30, 40, 50, 10, 90, 200]
    assert (there[6].frame, there[6].frames, there[6].name) == (1, 3, "three.tif")
    with pytest.raises(ImageError, match="not an image"):
        there[8]
    reader._children.queue[0].end()
    assert grays([there[3]]) == [40], "another child looks at the files anew"


def test_a_large_picture_in_a_zip_is_refused_as_a_large_upload_is(reader, tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"a.png": saved(Image.new("1", (6000, 6000)), "PNG"), "b.png": PNG}))
    found = reader.read_many([tmp_path / "a.zip"])
    with pytest.raises(ImageError, match="25 megapixels"):
        found[0]
    assert found[1].image == gradient()


def test_what_is_no_picture_is_none_by_its_second_name(tmp_path):
    picture = saved(Image.new("RGB", (8, 8)), "PNG")
    paths = []
    for name in ("one.zip", "two.zip"):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(zipped({"img.png": picture, "LICENSE": b"free", "metadata.csv": b"file_name,label"}))
    assert [entry.file for entry in read_images(paths).entries] == ["img.png", "img (2).png"]


def test_a_file_that_went_away_is_said_so(tmp_path):
    with pytest.raises(ImageError, match="no file 'gone.zip' any more"):
        read_images([tmp_path / "gone.zip"])
