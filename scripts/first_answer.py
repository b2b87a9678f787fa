"""Start an app by a command, ask it for one analysis as a client does, and stop it: `first_answer.py medssl demo`.

Needs nothing of this checkout, only the interpreter's gradio_client and Pillow, so that it tests an installed package.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

STARTED_WITHIN = 180.0  # seconds, on a busy machine


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_page(url: str, process: subprocess.Popen) -> None:
    """Return when the page answers 200. Raises SystemExit when the app ends or takes too long."""
    end = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"The app ended with {process.returncode} before its page answered.")
        try:
            with urllib.request.urlopen(url, timeout=5) as page:
                if page.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    raise SystemExit(f"No page after {STARTED_WITHIN:g} seconds.")


def analyze(url: str) -> dict:
    """The app's answer to a drawn picture."""
    from gradio_client import Client, handle_file
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.radial_gradient("L").convert("RGB").save(picture)
        client = Client(url, verbose=False)
        task = client.predict(api_name="/tasks")[0]
        answer = client.predict(handle_file(picture), task["name"], api_name="/analyze")
        if not Path(answer["explanation"]["heatmap"]).is_file():
            raise SystemExit("The analysis has no heatmap.")
    if answer["prediction"]["label"] not in task["labels"] or len(answer["cases"]) != 6:
        raise SystemExit(f"The analysis is incomplete: {answer}")
    return answer


def main(command: list[str]) -> int:
    """Run the command with a free port and print the first answer's class."""
    port = free_port()
    process = subprocess.Popen([*command, "--port", str(port)])
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for_page(url, process)
        answer = analyze(url)
    finally:
        process.terminate()
        process.wait(STARTED_WITHIN)
    label, cases = answer["prediction"]["label"], len(answer["cases"])
    print(f"{' '.join(command)}: {answer['task']}, {label}, {cases} cases, a heatmap")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
