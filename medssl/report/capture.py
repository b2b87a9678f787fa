"""A heatmap's overlay as a DICOM Secondary Capture, for those who keep pictures in an archive."""

from __future__ import annotations

import io
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import generate_uid

from medssl import __version__
from medssl.errors import ImageError

# What ties the capture to a patient and a study; copied only when it is asked for.
PATIENT_TAGS = {
    "patient_id": "PatientID",
    "patient_name": "PatientName",
    "patient_birth_date": "PatientBirthDate",
    "patient_sex": "PatientSex",
    "accession_number": "AccessionNumber",
    "study_id": "StudyID",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "referring_physician_name": "ReferringPhysicianName",
}
DESCRIPTION = "medssl heatmap overlay: research only, not for diagnosis"


def can_capture() -> bool:
    """Whether highdicom is installed, which writes the files."""
    return find_spec("highdicom") is not None


def secondary_capture(overlay: Image.Image, patient_of: bytes | None = None) -> bytes:
    """An RGB overlay as a DICOM Secondary Capture (PS3.3 A.8.1) with new UIDs and nobody's name.

    `patient_of` is a DICOM file whose patient and study it is to join: then, and only then, its identifying tags and
    Study Instance UID are copied. Raises ImageError without highdicom, or for a `patient_of` that is no DICOM file.
    """
    if not can_capture():
        raise ImageError("DICOM files are written by highdicom, which is not installed: pip install 'medssl[dicom]'.")
    capture = import_module("highdicom").sc.SCImage(
        pixel_array=np.asarray(overlay.convert("RGB")),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="medssl",
        manufacturer_model_name=f"medssl {__version__}",
        **identity(patient_of),
    )
    # highdicom asks for an orientation, which a picture that was only looked at does not have.
    del capture.PatientOrientation
    capture.PatientOrientation = None
    capture.SeriesDescription = DESCRIPTION
    if patient_of is not None:  # else nobody looked whether text is burnt in, and the tag stays away
        capture.BurnedInAnnotation = "YES"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    stream = io.BytesIO()
    capture.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def identity(patient_of: bytes | None) -> dict:
    """The patient and study of a capture: nobody in a new study, or those of a file. Raises ImageError."""
    if patient_of is None:
        return {"study_instance_uid": generate_uid()}
    try:
        source = pydicom.dcmread(io.BytesIO(patient_of), stop_before_pixels=True)
        study = str(source.StudyInstanceUID)
    except (pydicom.errors.InvalidDicomError, AttributeError, OSError, ValueError) as error:
        raise ImageError(
            "The patient cannot be taken from this file: it is no DICOM file with a study. Leave patient_of out for a "
            "capture without a patient."
        ) from error
    copied = {name: source.get(tag) or None for name, tag in PATIENT_TAGS.items()}
    return {"study_instance_uid": study, **{name: value for name, value in copied.items() if value is not None}}
