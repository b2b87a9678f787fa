"""Users, hostile files and kills against a server on this machine, for some minutes; a table of what came back.

Loopback alone, bounded by --minutes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
STARTS_WITHIN, ANSWERS_WITHIN = 300.0, 120.0
QUESTIONS = {
    "class": ("classify", [""]),
    "cases": ("similar", ["", 6]),
    "heatmap": ("explain", ["", "", "vit_cx", False]),
}
OUTCOMES = ("answered", "refused with a sentence", "told to wait", "cut by a kill", "errors")


@dataclass
class Tally:
    """What came back, by question and outcome; added to from all users' threads."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, question: str, outcome: str, said: str = "") -> None:
        """Count one outcome; what an error said is remembered."""
        with self.lock:
            self.counts[question, outcome] += 1
            if outcome == "errors" and len(self.errors) < 20:
                self.errors.append(f"{question}: {said[:200]}")


class Server:
    """`python app.py` on this machine, with temporary files in a folder of its own; can be killed and started anew."""

    def __init__(self, folder: Path, bundles: Sequence[str]) -> None:
        self.folder, self.bundles = folder, list(bundles)
        self.deaths = self.peak_kb = 0
        self.up = threading.Event()

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError when it does not."""
        with socket.socket() as free:
            free.bind((HOST, 0))
            port = free.getsockname()[1]
        self.url = f"http://{HOST}:{port}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MEDSSL_", "GRADIO_"))}
        environment = {**kept, "TMPDIR": str(self.folder), "GRADIO_ANALYTICS_ENABLED": "False"}
        chosen = ["--bundle", *self.bundles] if self.bundles else []
        command = [sys.executable, str(ROOT / "app.py"), "--host", HOST, "--port", str(port), *chosen]
        said = self.folder.parent / "server.log"
        with said.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
        end = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < end and self.process.poll() is None:
            try:
                # 503: the page that says what is being loaded.
                httpx.get(f"{self.url}/gradio_api/info", timeout=5).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.5)
            else:
                self.up.set()
                return
        self.process.kill()
        log_tail = said.read_text("utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"The server did not start within {STARTS_WITHIN:.0f} s. The end of its log:\n{log_tail}")

    def look(self) -> None:
        """Keep the highest memory seen, in kB, of the server alone."""
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text("utf-8").splitlines()
        except OSError:
            return
        self.peak_kb = max([self.peak_kb, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])

    def kill(self) -> None:
        """End it as a crash would, and start another."""
        self.up.clear()
        self.process.kill()
        self.process.wait()
        self.deaths += 1
        self.start()

    def close(self) -> int:
        """End it as a service manager would. Returns how many files it left."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return sum(path.is_file() for path in self.folder.rglob("*"))


def good_file(generator: np.random.Generator) -> bytes:
    """A small picture of noise."""
    stream = io.BytesIO()
    Image.fromarray(generator.integers(0, 255, (96, 96, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def hostile_file(generator: np.random.Generator) -> bytes:
    """One of: a PNG of one color with 49 megapixels, a cut PNG, a drawing with a script, noise, a broken DICOM file."""
    stream = io.BytesIO()
    kind = generator.integers(0, 5)
    if kind == 0:
        Image.new("L", (7000, 7000)).save(stream, "PNG", compress_level=1)
        return stream.getvalue()
    if kind == 1:
        return good_file(generator)[:200]
    if kind == 2:
        return b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    noise = generator.bytes(4096)
    return noise if kind == 3 else b"\0" * 128 + b"DICM" + noise


def ask(server: Server, question: str, data: bytes) -> tuple[str, str]:
    """One call as a client makes it: upload, ask, listen. Returns the outcome and what was said."""
    endpoint, values = QUESTIONS[question]
    api, deaths = f"{server.url}/gradio_api", server.deaths
    try:
        with httpx.Client(timeout=ANSWERS_WITHIN) as client:
            uploaded = client.post(f"{api}/upload", files={"files": ("image.png", data)})
            if uploaded.status_code != 200:
                return outcome_of(uploaded)
            file = {"path": uploaded.json()[0], "meta": {"_type": "gradio.FileData"}}
            asked = client.post(f"{api}/call/{endpoint}", json={"data": [file, *values]})
            if asked.status_code != 200:
                return outcome_of(asked)
            told = client.get(f"{api}/call/{endpoint}/{asked.json()['event_id']}").text
    except (httpx.HTTPError, ValueError, KeyError) as error:
        killed = server.deaths != deaths or not server.up.is_set()
        return ("cut by a kill" if killed else "errors"), f"{type(error).__name__}: {error}"
    if "event: complete" in told:
        return "answered", ""
    said = told.rsplit("data: ", 1)[-1].strip()
    if "queue is full" in said.lower():
        return "told to wait", said
    return ("errors" if said in ("", "null", '{"error": null}') else "refused with a sentence"), said


def outcome_of(answer: httpx.Response) -> tuple[str, str]:
    """The outcome that a refusal by status is."""
    if answer.status_code in (429, 503):
        return "told to wait", answer.text
    return ("refused with a sentence" if answer.status_code < 500 else "errors"), answer.text


def use(server: Server, tally: Tally, number: int, seed: int, end: float) -> None:
    """One user until the end: mostly good files; each eighth file is hostile."""
    choose, generator = random.Random(seed + number), np.random.default_rng(seed + number)
    while time.monotonic() < end:
        if not server.up.wait(1):
            continue
        question, hostile = choose.choice(list(QUESTIONS)), choose.random() < 1 / 8
        outcome, said = ask(server, question, (hostile_file if hostile else good_file)(generator))
        tally.add("hostile file" if hostile else question, outcome, said)
        time.sleep(choose.uniform(0.5, 3) if outcome != "told to wait" else 3)


def browse(server: Server, tally: Tally, chromium: str, end: float) -> None:
    """One browser that loads the page, takes an example and presses Analyze, again and again."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        browser = driver.chromium.launch(executable_path=chromium, headless=True, args=flags)
        while time.monotonic() < end:
            if not server.up.wait(1):
                continue
            deaths = server.deaths
            page = browser.new_page()
            try:
                page.goto(server.url, wait_until="domcontentloaded")
                page.locator("#examples button").first.click(timeout=60_000)
                page.locator("#preview img").wait_for(timeout=60_000)
                page.locator("#analyze").click()
                page.locator("#predicted-class").wait_for(timeout=60_000)
                tally.add("page", "answered")
            except Error as error:
                toasts = page.locator("[data-testid='toast-body']").all_inner_texts() if not page.is_closed() else []
                waiting = any("queue" in text.lower() or "wait" in text.lower() for text in toasts)
                killed = server.deaths != deaths or not server.up.is_set()
                outcome = "told to wait" if waiting else "cut by a kill" if killed else "errors"
                tally.add("page", outcome, " ".join(toasts) or str(error))
            finally:
                page.close()
            time.sleep(2)
        browser.close()


def soak(options: argparse.Namespace, folder: Path) -> tuple[Tally, Server, int]:
    """All users at once, and kills at even distances. Returns what came back, the server, and the files it left."""
    (folder / "temporary").mkdir()
    server, tally = Server(folder / "temporary", options.bundle), Tally()
    server.start()
    try:
        end = time.monotonic() + 60 * options.minutes
        users = [
            threading.Thread(target=use, args=(server, tally, number, options.seed, end), daemon=True)
            for number in range(options.users)
        ]
        if options.chromium:
            users.append(threading.Thread(target=browse, args=(server, tally, options.chromium, end), daemon=True))
        for user in users:
            user.start()
        pause = 60 * options.minutes / (options.kills + 1)
        next_kill = time.monotonic() + pause
        while time.monotonic() < end:
            time.sleep(min(1.0, pause))
            server.look()
            if server.deaths < options.kills and time.monotonic() >= next_kill:
                server.kill()
                next_kill = time.monotonic() + pause
        for user in users:
            user.join(ANSWERS_WITHIN)
    finally:
        left = server.close()
    return tally, server, left


def report(tally: Tally, server: Server, left: int, options: argparse.Namespace) -> str:
    """The table as Markdown."""
    asked = sorted({question for question, _ in tally.counts})
    rows = [[question, *(str(tally.counts[question, item]) for item in OUTCOMES)] for question in asked]
    lines = [
        f"{options.users} users, {options.minutes:g} minutes, {server.deaths} kills, "
        f"{'one browser page' if options.chromium else 'no browser'}, seed {options.seed}.",
        "",
        f"| asked | {' | '.join(OUTCOMES)} |",
        f"| --- |{' --- |' * len(OUTCOMES)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"Highest memory of the server: {server.peak_kb / 1024:.0f} MB. Files left at the end: {left}.",
    ]
    return "\n".join([*lines, *(f"- {json.dumps(error)}" for error in tally.errors)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line. Returns 0, or 1 when there were errors or files were left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4, help="length, at most 60 (default %(default)s)")
    parser.add_argument("--users", type=int, default=20, help="default %(default)s")
    parser.add_argument("--kills", type=int, default=2, help="kill -9 and restart, this often (default %(default)s)")
    parser.add_argument("--bundle", nargs="+", default=[], help="bundles to serve (default: as app.py chooses)")
    parser.add_argument("--chromium", default="", help="a Chromium for one browser page (default: no browser)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if not 0 < options.minutes <= 60 or options.users < 1 or options.kills < 0:
        parser.error("Allowed: --minutes over 0 to 60, --users from 1, --kills from 0.")
    with tempfile.TemporaryDirectory(prefix="medssl-soak-") as folder:
        tally, server, left = soak(options, Path(folder))
    print(report(tally, server, left, options))
    return int(bool(left) or any(outcome == "errors" for _, outcome in tally.counts))


if __name__ == "__main__":
    sys.exit(main())
