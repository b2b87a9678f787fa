"""Requests over plain HTTP that do not fit get a sentence from the running server, never an exception or nothing."""

import json

import httpx
import pytest

CALL = "/gradio_api/call"


def answer_of(app, endpoint, data):
    """What the server says to a call, wherever it says it: at once, or in the stream of its answer."""
    asked = httpx.post(f"{app.url}{CALL}/{endpoint}", json={"data": data}, timeout=30)
    if asked.status_code != 200:
        return asked.json()["detail"]
    told = httpx.get(f"{app.url}{CALL}/{endpoint}/{asked.json()['event_id']}", timeout=60).text
    assert told.startswith("event: error"), told
    said = json.loads(told.split("data: ", 1)[1])
    return said if isinstance(said, str) else said["error"]


@pytest.fixture(scope="module")
def uploaded(app, shapes_image):
    """The image as a file of the server."""
    files = {"files": ("x.png", shapes_image.read_bytes())}
    path = httpx.post(f"{app.url}/gradio_api/upload", files=files, timeout=30).json()[0]
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_an_unknown_endpoint_names_the_known_ones(app):
    for asked in (
        httpx.post(f"{app.url}{CALL}/diagnose", json={"data": []}, timeout=30),
        httpx.get(f"{app.url}{CALL}/diagnose/abc", timeout=30),
    ):
        assert asked.status_code == 404
        assert "no endpoint 'diagnose'" in asked.json()["detail"] and "classify" in asked.json()["detail"]


def test_an_unknown_call_is_said_at_once(app):
    asked = httpx.get(f"{app.url}{CALL}/classify/0123", timeout=30)
    assert asked.status_code == 404 and "no call '0123'" in asked.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"data": 3}', b'{"fn_index": "x"}', b"\xff\xfe"])
def test_a_body_that_does_not_fit(app, body):
    headers = {"Content-Type": "application/json"}
    for path in (f"{CALL}/classify", "/gradio_api/queue/join"):
        asked = httpx.post(f"{app.url}{path}", content=body, headers=headers, timeout=30)
        assert asked.status_code in (200, 422), asked.text
        if asked.status_code == 422:
            assert isinstance(asked.json()["detail"], str) and asked.json()["detail"].endswith(".")


@pytest.mark.parametrize("top_k", ["6", "many", None, [1], {"a": 1}, True])
def test_top_k_of_another_kind(app, uploaded, top_k):
    said = answer_of(app, "similar", [uploaded, "shapes", top_k])
    assert "top_k" in said or "number of similar cases" in said


@pytest.mark.parametrize(
    ("endpoint", "data", "word"),
    [
        ("classify", [], "values"),
        ("classify", [3, "shapes"], "file"),
        ("classify", [None, "shapes"], "No image was given"),
        ("classify", [{"path": "/etc/passwd"}, "shapes"], "file"),
        ("classify", ["text", "shapes"], "file"),
    ],
)
def test_values_that_do_not_fit(app, endpoint, data, word):
    said = answer_of(app, endpoint, data)
    assert word in said and "Traceback" not in said and "/etc/passwd" not in said


def test_text_of_another_kind(app, uploaded):
    assert "no task" in answer_of(app, "classify", [uploaded, 7])
    assert answer_of(app, "explain", [uploaded, "shapes", {"a": 1}, "vit_cx", False])
    assert "verify" in answer_of(app, "explain", [uploaded, "shapes", "", "vit_cx", "yes"])


def test_no_exception_reached_the_log(app):
    assert "Traceback" not in app.log.read_text("utf-8")
