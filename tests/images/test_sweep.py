"""Every test file that pydicom's and Pillow's packages ship: a picture or an ImageError, never anything else."""

import importlib.metadata
import warnings
from pathlib import Path

import pydicom
import pytest
from PIL import Image

from medssl.errors import ImageError
from medssl.images import frame_count, read_image

PYDICOM = Path(pydicom.__file__).parent / "data"


def shipped_files() -> list[Path]:
    """The data files in pydicom's wheel, and the files that are no code in Pillow's."""
    files = [path for path in PYDICOM.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    pillow = importlib.metadata.files("pillow") or []
    files += [Path(path.locate()) for path in pillow if path.suffix not in (".py", ".pyc", ".so", ".typed", ".pyi")]
    return sorted({path for path in files if path.is_file() and "__pycache__" not in path.parts})


@pytest.mark.parametrize("path", shipped_files(), ids=lambda path: path.name)
def test_a_picture_or_an_image_error(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(path)
        except ImageError as error:
            assert len(str(error)) > 20 and str(path.parent) not in str(error)
            return
        assert isinstance(image, Image.Image) and image.mode == "RGB" and min(image.size) >= 1
        for frame in range(min(3, frame_count(path))):
            assert read_image(path, frame=frame).mode == "RGB"


def test_most_shipped_pictures_are_read():
    read = 0
    for path in shipped_files():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_image(path)
                read += path.suffix == ".dcm"
            except ImageError:
                pass
    assert read >= 40
