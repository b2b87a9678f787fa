"""Page start to first answer: `python app.py` in a new process until the page is up, then the first analysis by API."""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--bundle", nargs="+", required=True, help="bundle folders to serve")
    parser.add_argument("--image", required=True, help="the image to ask about")
    parser.add_argument("--rounds", type=int, default=3, help="fresh starts (default: 3)")


def run(arguments: argparse.Namespace) -> dict:
    """Start, wait, ask, stop; print the medians. `import` is a bare `import torch, gradio, transformers` beside it."""
    from gradio_client import Client, handle_file

    root = Path(__file__).resolve().parents[2]
    timings: dict[str, list[float]] = {name: [] for name in ("import", "port", "page", "first_answer", "second_answer")}
    for _ in range(arguments.rounds):
        started = time.perf_counter()
        bare = "import torch, gradio, transformers, datasets, qdrant_client, sklearn.cluster"
        subprocess.run([sys.executable, "-c", bare], check=True)
        timings["import"].append(time.perf_counter() - started)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}/"
        started = time.perf_counter()
        command = [sys.executable, str(root / "app.py"), "--port", str(port), "--bundle", *arguments.bundle]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        try:
            answered = None
            while True:
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except urllib.error.HTTPError:  # 503: the page that says what is being loaded
                    answered = answered or time.perf_counter() - started
                except (urllib.error.URLError, ConnectionError, TimeoutError):
                    if server.poll() is not None:
                        raise SystemExit("The page did not start; run app.py by hand to see why.") from None
                time.sleep(0.05)
            timings["port"].append(answered or time.perf_counter() - started)
            timings["page"].append(time.perf_counter() - started)
            client = Client(url, verbose=False)
            for name in ("first_answer", "second_answer"):
                asked = time.perf_counter()
                client.predict(image=handle_file(arguments.image), api_name="/analyze")
                timings[name].append(time.perf_counter() - (started if name == "first_answer" else asked))
        finally:
            server.terminate()
            server.wait(timeout=20)
    figures = {name: statistics.median(values) for name, values in timings.items()}
    print("| what | seconds (median) |\n| --- | --- |")
    print(f"| bare imports alone | {figures['import']:.2f} |")
    print(f"| start to the page that says what is loaded | {figures['port']:.2f} |")
    print(f"| start to page, {len(arguments.bundle)} bundles | {figures['page']:.2f} |")
    print(f"| start to first answer with heatmap | {figures['first_answer']:.2f} |")
    print(f"| a later answer with heatmap | {figures['second_answer']:.2f} |")
    return {**figures, "rounds": arguments.rounds, "bundles": len(arguments.bundle)}
