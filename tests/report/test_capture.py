"""The overlay as a DICOM file: readable, new, and nobody's unless it is asked for."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import SecondaryCaptureImageStorage

from medssl.errors import ImageError
from medssl.images import read_image
from medssl.report import secondary_capture

pytest.importorskip("highdicom", reason="highdicom is not installed: no DICOM files are written")
IDENTIFYING = ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyDate", "ReferringPhysicianName")


def read(data):
    return pydicom.dcmread(io.BytesIO(data))


def test_it_holds_the_overlay_and_nobodys_name(shapes_analysis):
    overlay = shapes_analysis.explanation.overlay(shapes_analysis.image)
    one, other = read(secondary_capture(overlay)), read(secondary_capture(overlay))
    assert one.SOPClassUID == SecondaryCaptureImageStorage and "not for diagnosis" in one.SeriesDescription
    assert not [tag for tag in IDENTIFYING if one.get(tag)]
    assert "BurnedInAnnotation" not in one  # nobody looked
    for tag in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert one[tag].value != other[tag].value
    np.testing.assert_array_equal(np.asarray(read_image(secondary_capture(overlay))), np.asarray(overlay))


def test_a_patient_is_copied_only_when_asked_for(shapes_analysis):
    overlay = shapes_analysis.explanation.overlay(shapes_analysis.image)
    path = get_testdata_file("CT_small.dcm")
    source, made = pydicom.dcmread(path), read(secondary_capture(overlay, open(path, "rb").read()))
    assert (made.PatientName, made.PatientID, made.StudyInstanceUID) == (
        source.PatientName,
        source.PatientID,
        source.StudyInstanceUID,
    )
    assert made.SeriesInstanceUID != source.SeriesInstanceUID and made.SOPInstanceUID != source.SOPInstanceUID
    assert "InstitutionName" not in made


def test_no_dicom_file_has_no_patient(shapes_analysis):
    with pytest.raises(ImageError, match="no DICOM file with a study"):
        secondary_capture(shapes_analysis.image, b"no dicom")
