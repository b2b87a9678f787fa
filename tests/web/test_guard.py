"""The running server: no way round the queue, no foreign names or pages, nothing monitored, nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from medssl.web.guard import GuardRules, host_name
from medssl.web.traffic import UploadedBytes
from medssl.web.upload_folders import PREFIX, start_of, sweep, upload_folder
from tests.conftest import ROOT


def post(app, path, headers=None, body=None):
    return httpx.post(f"{app.url}{path}", headers=headers or {}, json=body or {"data": []}, timeout=30)


@pytest.mark.parametrize("path", ["/gradio_api/run/classify", "/gradio_api/api/classify", "/gradio_api/run/analyze/"])
def test_the_queue_cannot_be_walked_round(app, path):
    answer = post(app, path, body={"data": [{"path": "x"}, "shapes"]})
    assert answer.status_code in (404, 405)


def test_call_and_the_client_go_on(app, client):
    assert client.predict(api_name="/tasks")
    event = post(app, "/gradio_api/call/tasks").json()["event_id"]
    assert "event: complete" in httpx.get(f"{app.url}/gradio_api/call/tasks/{event}", timeout=30).text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", ""])
@pytest.mark.parametrize("path", ["/", "/gradio_api/info", "/config", "/gradio_api/mcp/"])
def test_a_foreign_name_is_not_answered_to(app, host, path):
    answer = httpx.get(f"{app.url}{path}", headers={"Host": host}, timeout=30)
    assert answer.status_code in (400, 403)
    if answer.status_code == 403:
        assert "does not answer to the name" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "192.168.7.7"])
def test_this_machines_names_and_addresses_are_answered_to(app, host):
    port = urlsplit(app.url).port
    assert httpx.get(f"{app.url}/gradio_api/info", headers={"Host": f"{host}:{port}"}, timeout=30).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example"])
@pytest.mark.parametrize("path", ["/gradio_api/call/tasks", "/gradio_api/upload", "/gradio_api/mcp/"])
def test_a_foreign_page_cannot_drive_it(app, origin, path):
    answer = post(app, path, {"Origin": origin})
    assert answer.status_code == 403 and "another site" in answer.json()["detail"]


def test_its_own_page_can(app):
    assert post(app, "/gradio_api/call/tasks", {"Origin": app.url}).status_code == 200


def test_headers_and_no_monitoring(app):
    answer = httpx.get(app.url, timeout=30)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "frame-ancestors 'self'"
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert httpx.get(f"{app.url}/monitoring", timeout=30).status_code in (403, 404)


def test_what_may_be_uploaded_in_a_minute():
    uploads = UploadedBytes(most=100)
    assert uploads.add("a", 60) and uploads.add("b", 90) and not uploads.add("a", 60)


@pytest.mark.parametrize(
    ("netloc", "name"), [("a.b:80", "a.b"), ("[::1]:9", "::1"), ("A.B", "a.b"), ("", ""), ("[x", "")]
)
def test_the_name_in_a_header(netloc, name):
    assert host_name(netloc) == name


def test_rules(monkeypatch):
    monkeypatch.setenv("MEDSSL_ALLOWED_HOSTS", "demo.example, other.example")
    monkeypatch.setenv("SPACE_HOST", "me-medssl.hf.space")
    rules = GuardRules.of("0.0.0.0", ["third.example"], share=True)
    for name in ("demo.example", "other.example", "third.example", "me-medssl.hf.space", "abc.gradio.live", "10.0.0.7"):
        assert rules.answers_to(name)
    for name in ("evil.example", "", "gradio.live.evil.example"):
        assert not rules.answers_to(name)


def test_uploads_of_a_killed_process_are_swept(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from medssl.web.upload_folders import upload_folder\n"
        "with upload_folder() as folder:\n"
        " (folder / 'scan.png').write_text('x'); print(folder, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(ROOT)], stdout=subprocess.PIPE, text=True)
    folder = Path(process.stdout.readline().strip())
    assert (folder / "scan.png").is_file() and sweep(tmp_path) == [], "a living process keeps its own"
    process.kill()
    process.wait()
    other = tmp_path / f"{PREFIX}notes"
    other.mkdir()
    assert sweep(tmp_path) == [folder] and not folder.exists() and other.exists()


def test_a_recycled_process_number_does_not_keep_a_folder(tmp_path):
    folder = tmp_path / f"{PREFIX}{os.getpid()}-{int(start_of(os.getpid()) or 1) + 1}-x"
    folder.mkdir()
    assert sweep(tmp_path) == [folder]


def test_an_own_folder_is_gone_at_the_end():
    with upload_folder() as folder:
        (folder / "a").write_text(json.dumps(1))
    assert not folder.exists()
