"""The report through the page and the API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from pydicom.data import get_testdata_file

from medssl.web.panels.report import report_files


def test_the_api_gives_html_and_json(client, shapes_image, tiny_bundles):
    made = client.predict(handle_file(str(shapes_image)), "shapes", "", 2, "occlusion", api_name="/report")
    facts, html = json.loads(Path(made["json"]).read_text("utf-8")), Path(made["html"]).read_text("utf-8")
    assert facts["prediction"]["label"] == tiny_bundles["shapes"].analyze(shapes_image).prediction.label
    assert len(facts["cases"]) == 2 and facts["explanation"]["method"] == "occlusion"
    assert made["task"] == "shapes" and made["dicom"] is None and shapes_image.name not in html


def test_a_dicom_upload_also_gives_a_dicom_file(client):
    pytest.importorskip("highdicom", reason="highdicom is not installed: no DICOM files are written")
    path = get_testdata_file("CT_small.dcm")
    made = client.predict(handle_file(path), "shapes", "", 1, "occlusion", api_name="/report")
    assert Path(made["dicom"]).read_bytes()[128:132] == b"DICM"


def test_too_many_cases_are_refused(client, shapes_image):
    with pytest.raises(AppError, match="from 1 to 12"):
        client.predict(handle_file(str(shapes_image)), "shapes", "", 13, api_name="/report")


def test_a_report_without_an_overlay_has_no_dicom_file():
    from medssl.report import Report

    assert list(report_files(Report("<html>", {}), dicom=True)) == ["medssl-report.html", "medssl-report.json"]
