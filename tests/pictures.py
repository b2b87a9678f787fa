"""Pictures as files, made in memory: any format of Pillow, and DICOM."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)


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


def wrapped(stream, syntax=JPEGBaseline8Bit):
    """A DICOM file around a compressed frame."""
    values = np.zeros((200, 200), np.uint8)
    return dicom(values, TransferSyntaxUID=syntax, PixelData=encapsulate([stream]))


def shipped(name):
    """One of the files in pydicom's wheel; never downloaded."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} is not in the wheel")
    return path


PNG = saved(gradient(), "PNG")


JPEG = saved(gradient(200, 200), "JPEG")


JPEG_GRAY = saved(gradient(200, 200).convert("L"), "JPEG")


DEFLATED = dicom(RAMP, TransferSyntaxUID=DeflatedExplicitVRLittleEndian)


def encapsulated():
    return encapsulate([JPEG])
