"""A report: whole in one file, nothing of the upload but its pixels, the same answer as the analysis."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime, timezone
from html import unescape

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from medssl.data.tasks import NOT_FOR_DIAGNOSIS
from medssl.errors import ImageError
from medssl.explain import EXPLAINERS
from medssl.report import ReportOptions, compose_report
from medssl.report.provenance import head_revision
from medssl.report.report import HEATMAP_CAUTION, LESION_CAUTION
from tests.conftest import sample

MOST_BYTES = 2 * 10**6
SECRET = "Zanzibar"


def at_noon():
    return datetime(2026, 1, 2, 12, 0, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def report(tiny_bundles, shapes_image):
    options = ReportOptions(method="vit_cx", top_k=3)
    return compose_report(tiny_bundles["shapes"].open(shapes_image), options, now=at_noon)


def addresses(html):
    """Everything in a page that a browser may fetch or open."""
    return re.findall(r"""(?:src|href|url|action|data|srcset)\s*[=(]\s*["']?([^"')\s>]+)""", html)


def test_it_says_what_the_analysis_says_and_is_no_diagnosis(report, tiny_bundles, shapes_image):
    expected = tiny_bundles["shapes"].analyze(shapes_image, top_k=3, method="vit_cx", verify=True)
    for text in (expected.prediction.label, NOT_FOR_DIAGNOSIS, HEATMAP_CAUTION, "2026-01-02 12:00 UTC"):
        assert text in unescape(report.html)
    assert report.facts["prediction"] == expected.to_dict()["prediction"]
    assert [case["id"] for case in report.facts["cases"]] == [case.id for case in expected.cases]
    assert report.facts["verification"]["insertion"] == expected.to_dict()["verification"]["insertion"]
    assert report.html.count('class="case"') == 3 and report.facts["cases"][0]["likeness"]["method"] == "vit_cx"
    assert report.facts["provenance"]["backbone"]["revision"] in report.html
    assert "Accuracy" in report.html and json.loads(report.json) == report.facts


def test_it_needs_nothing_else_and_is_small(report):
    assert len(addresses(report.html)) >= 8 and all(one.startswith("data:image/") for one in addresses(report.html))
    assert "<script" not in report.html and len(report.html.encode()) < MOST_BYTES


def test_the_largest_picture_still_gives_a_small_report(tiny_bundles):
    noise = np.random.default_rng(0).integers(0, 256, (900, 1400, 3), dtype=np.uint8)
    opened = tiny_bundles["shapes"].open(Image.fromarray(noise))
    made = compose_report(opened, ReportOptions(method="occlusion", top_k=2, verify=False))
    assert len(made.html.encode()) < MOST_BYTES and "1400 × 900" in made.html
    assert "not verified" in made.html and made.facts["verification"] is None


def tagged(path):
    """A DICOM file with a secret in every text tag that takes one."""
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    for tag in ("PatientName", "PatientID", "PatientAddress", "InstitutionName", "ReferringPhysicianName", "StudyID",
                "StudyDescription", "SeriesDescription", "AccessionNumber", "OperatorsName", "PatientComments",
                "ImageComments", "DeviceSerialNumber", "StationName", "OtherPatientIDs", "ProtocolName"):  # fmt: skip
        setattr(dataset, tag, SECRET)
    dataset.add_new(0x00990010, "LO", SECRET)
    dataset.add_new(0x00991001, "LO", SECRET)
    dataset.save_as(path)
    return dataset


def test_nothing_of_a_dicom_files_tags_or_name_is_in_it(tiny_bundles, tmp_path):
    path = tmp_path / f"{SECRET}-Doe.dcm"
    dataset = tagged(path)
    made = compose_report(tiny_bundles["shapes"].open(path), ReportOptions(top_k=1, verify=False))
    texts = {SECRET, "Doe", "CompressedSamples"}
    texts |= {
        str(element.value) for element in dataset if element.VR in ("UI", "DA", "TM") and len(str(element.value)) > 5
    }
    for text in made.html, made.json:
        assert not [secret for secret in texts if secret in re.sub(r"data:image/[^\"]+", "", text)]
    for address in addresses(made.html):
        assert SECRET.encode() not in base64.b64decode(address.split(",", 1)[1])


def test_a_method_with_a_caution_shows_it(tiny_bundles, shapes_image):
    opened = tiny_bundles["shapes"].open(shapes_image)
    made = compose_report(opened, ReportOptions(method="attention_rollout", top_k=1, verify=False))
    caution = EXPLAINERS["attention_rollout"].caution
    assert caution in made.html and caution in made.facts["cautions"]
    assert made.facts["cases"][0]["likeness"]["method"] == "vit_cx"


def test_a_lesion_map_has_its_place_and_its_own_caution(lesion_bundle, lesion_data, report):
    opened = lesion_bundle.open(sample(lesion_data, "warm"))
    made = compose_report(opened, ReportOptions(method="occlusion", top_k=1, verify=False))
    assert "<h2>Where is a lesion seen?</h2>" in made.html and LESION_CAUTION in unescape(made.html)
    assert made.facts["lesion_map"]["box"] == list(opened.lesion_map().box)
    assert "lesion" not in report.html


def test_it_is_written_whole_beside_its_json(report, tmp_path):
    page, values = report.save(tmp_path / "new")
    assert page.read_text("utf-8") == report.html and json.loads(values.read_text("utf-8")) == report.facts
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="cannot be written"):
        report.save(tmp_path / "file")


def test_another_head_has_another_revision(tiny_bundles):
    heads = [bundle.head for bundle in tiny_bundles.values()]
    assert head_revision(heads[0]) == head_revision(heads[0]) != head_revision(heads[1])


def test_it_can_be_stopped(tiny_bundles, shapes_image):
    class Enough(Exception):
        pass

    def stop(fraction, _text):
        if fraction > 0.5:
            raise Enough

    with pytest.raises(Enough):
        compose_report(tiny_bundles["shapes"].open(shapes_image), ReportOptions(top_k=1, verify=False), stop)
