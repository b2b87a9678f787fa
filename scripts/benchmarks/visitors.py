"""Many visitors at once: how long each waits for a class and for cases, while some of them ask for heatmaps."""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import httpx
import numpy as np

QUICK = {"class": ("classify", [""]), "cases": ("similar", ["", 6])}
HEATMAP = {"heatmap": ("explain", ["", "", "vit_cx", False])}
WITHIN = 300.0
Times = dict[str, list[float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own arguments."""
    parser.add_argument("--bundle", nargs="+", default=[], help="bundles to serve (default: as app.py chooses)")
    parser.add_argument("--users", type=int, default=20, help="that ask for classes and cases (default: %(default)s)")
    parser.add_argument("--heatmap-users", type=int, default=4, help="that ask for heatmaps (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="questions of each kind a user (default: %(default)s)")
    parser.add_argument(
        "--pause", type=float, default=1.0, help="seconds a user looks at an answer (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)


def ask(url: str, user: int, question: tuple[str, list], data: bytes) -> float:
    """Seconds from the upload to the answer of one call, from a loopback address of the user's own.

    Raises RuntimeError for anything but an answer.
    """
    endpoint, values = question
    api, started = f"{url}/gradio_api", time.perf_counter()
    transport = httpx.HTTPTransport(local_address=f"127.0.{1 + user // 250}.{1 + user % 250}")
    with httpx.Client(timeout=WITHIN, transport=transport) as client:
        uploaded = client.post(f"{api}/upload", files={"files": ("image.png", data)})
        file = {"path": uploaded.raise_for_status().json()[0], "meta": {"_type": "gradio.FileData"}}
        asked = client.post(f"{api}/call/{endpoint}", json={"data": [file, *values]})
        told = client.get(f"{api}/call/{endpoint}/{asked.raise_for_status().json()['event_id']}").text
    if "event: complete" not in told:
        raise RuntimeError(f"{endpoint}: {told.rsplit('data: ', 1)[-1].strip()[:200]}")
    return time.perf_counter() - started


class Crowd:
    """Users that ask at the same time, how long each answer took, and what was no answer."""

    def __init__(self, url: str, pause: float, seed: int) -> None:
        self.url, self.pause, self.seed = url, pause, seed
        self.seconds: Times = defaultdict(list)
        self.errors: list[str] = []
        self.lock = threading.Lock()

    def visit(self, user: int, questions: dict, rounds: int) -> None:
        """One user's questions, one after another, each of a picture of its own."""
        from soak import good_file

        generator = np.random.default_rng([self.seed, user])
        time.sleep(generator.uniform(0, self.pause))
        for _ in range(rounds):
            for name, question in questions.items():
                try:
                    seconds = ask(self.url, user, question, good_file(generator))
                except (httpx.HTTPError, RuntimeError) as error:
                    with self.lock:
                        self.errors.append(f"{name}: {error}")
                else:
                    with self.lock:
                        self.seconds[name].append(seconds)
                time.sleep(self.pause)

    def come(self, visits: list[tuple[int, dict, int]]) -> Times:
        """All visits (user, questions, rounds) at once."""
        threads = [threading.Thread(target=self.visit, args=visit) for visit in visits]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.seconds


def row(who: str, name: str, seconds: list[float]) -> dict:
    """The figures of one question."""
    half, most = np.percentile(seconds, [50, 95]) if seconds else (float("nan"), float("nan"))
    return {"visitors": who, "asked": name, "answers": len(seconds), "p50_s": float(half), "p95_s": float(most)}


def run(arguments: argparse.Namespace) -> dict:
    """One user alone, then all at once, then all with those who ask for heatmaps, on one server; print a table."""
    from soak import Server

    users = [(user, QUICK, arguments.rounds) for user in range(arguments.users)]
    mapping = [(arguments.users + user, HEATMAP, arguments.rounds) for user in range(arguments.heatmap_users)]
    visits = {"1": users[:1], f"{len(users)}": users, f"{len(users)} and {len(mapping)} with heatmaps": users + mapping}
    rows, errors = [], []
    with tempfile.TemporaryDirectory(prefix="medssl-visitors-") as folder:
        (Path(folder) / "temporary").mkdir()
        server = Server(Path(folder) / "temporary", arguments.bundle)
        server.start()
        try:
            Crowd(server.url, 0, arguments.seed).come([(0, QUICK, 1)])  # the first answers load what is loaded late
            for who, several in visits.items():
                crowd = Crowd(server.url, arguments.pause, arguments.seed)
                rows += [row(who, name, seconds) for name, seconds in sorted(crowd.come(several).items())]
                errors += crowd.errors
            server.look()
        finally:
            server.close()
    print("| visitors at once | asked | answers | p50 (s) | p95 (s) |\n| --- | --- | ---: | ---: | ---: |")
    for found in rows:
        figures = f"{found['answers']} | {found['p50_s']:.2f} | {found['p95_s']:.2f}"
        print(f"| {found['visitors']} | {found['asked']} | {figures} |")
    print(f"\nFrom upload to answer, {arguments.pause:g} s between a visitor's questions. No answer: {len(errors)}.")
    print("\n".join(f"- {error}" for error in errors[:5]))
    return {"visitors": rows, "errors": errors, "peak_mb": server.peak_kb / 1024}
