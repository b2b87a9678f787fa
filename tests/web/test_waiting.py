"""The page while the app loads: answered at once, says what is loaded, and gives way to the real one."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from medssl.web.waiting import waiting_page
from tests.conftest import ROOT


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, accept="text/html", method="GET"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/any", headers={"Accept": accept}, method=method)
    with pytest.raises(urllib.error.HTTPError) as found:
        urllib.request.urlopen(request, timeout=20)
    return found.value


def test_people_get_a_page_and_programs_a_sentence():
    port = free_port()
    with waiting_page("127.0.0.1", port) as say:
        answer = ask(port)
        assert answer.code == 503 and answer.headers["Retry-After"] == "2"
        assert '<p id="state" role="status" aria-live="polite">Starting.</p>' in answer.read().decode()
        say("Loading bundle 1 of 2: <b>lung</b>.")
        assert "1 of 2: &lt;b&gt;lung&lt;/b&gt;." in ask(port).read().decode()
        assert ask(port, "*/*").read().decode() == "medssl is not ready yet. Loading bundle 1 of 2: <b>lung</b>.\n"
        assert ask(port, method="POST").code == 503 and ask(port, method="HEAD").read() == b""
    with socket.socket() as probe:  # the port is free for the page that was waited for
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_a_port_that_is_taken_is_left_to_whoever_says_so():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with waiting_page("127.0.0.1", taken.getsockname()[1]) as say:
            say("nobody hears it")


def test_nothing_heavy_is_imported_before_the_port_answers():
    code = (
        "import sys, app, medssl.web.upload_folders\n"
        "from medssl.errors import MedSSLError\n"
        "from medssl.web.waiting import waiting_page\n"
        "print([name for name in ('torch', 'numpy', 'gradio', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_start_is_watched_from_the_first_answer_to_the_page(tmp_path):
    port = free_port()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "MEDSSL_CACHE": str(tmp_path)}
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    said, end = [], time.monotonic() + 300
    try:
        while time.monotonic() < end and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as page:
                    assert page.status == 200 and b"gradio" in page.read()
                    break
            except urllib.error.HTTPError as error:
                said.append(error.read().decode())
            except OSError:
                pass
            time.sleep(0.05)
        else:
            pytest.fail("no page")
    finally:
        process.terminate()
        process.wait(30)
    assert any("Loading the libraries." in text for text in said)
    assert any("Loading bundle 1 of 4" in text for text in said)
