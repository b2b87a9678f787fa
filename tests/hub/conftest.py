"""The Hub's stand-in, and the processes in which its real clients run: they read their settings at first import."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.hub.stand_in import READ, WRITE, StandIn
from tests.models import save_model


def client_environment(url: str, home: Path, token: str | None) -> dict[str, str]:
    """The environment of a process whose clients know only this Hub, this cache and this token."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "MEDSSL_", "GRADIO_TEMP"))}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    own = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    return {**kept, **quiet, **own, **({"HF_TOKEN": token} if token else {})}


class Failed(Exception):  # noqa: N818
    """What a step raised in a worker."""

    def __init__(self, kind: str, text: str, seconds: float) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text, self.seconds = kind, text, seconds


class Worker:
    """A process of its own that does the steps of tests/hub/steps.py on request."""

    def __init__(self, url: str, home: Path, token: str | None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.worker"],
            cwd=ROOT,
            env=client_environment(url, home, token),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, step: str, **settings: object):
        """Do a step. Raises Failed with what it raised."""
        self.process.stdin.write(json.dumps([step, settings]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"kind": "ended", "text": "", "seconds": 0}')
        if "kind" in answer:
            raise Failed(**answer)
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="session")
def stand_in():
    """The running stand-in; `stand_in.hub` holds its repos."""
    running = StandIn()
    yield running
    running.close()


@pytest.fixture(scope="session")
def hub(stand_in):
    """The stand-in's repos."""
    return stand_in.hub


@pytest.fixture(scope="session")
def homes(tmp_path_factory):
    """A folder for caches."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(scope="session")
def silent():
    """The address of a Hub that takes a call and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(scope="session")
def workers(stand_in, homes, silent):
    """All workers, started together so that their imports overlap."""
    made = {
        "publisher": Worker(stand_in.url, homes / "publisher", WRITE),
        "reader": Worker(stand_in.url, homes / "reader", WRITE),
        "offline": Worker(silent, homes / "reader", WRITE),
    }
    yield made
    for worker in made.values():
        worker.close()


@pytest.fixture(scope="session")
def publisher(workers, tiny_bundle_folders) -> Worker:
    """The process that publishes."""
    return workers["publisher"]


@pytest.fixture(scope="session")
def reader(workers) -> Worker:
    """Another process, with a cache of its own."""
    return workers["reader"]


@pytest.fixture(scope="session")
def offline(workers) -> Worker:
    """A process that reaches no Hub and has the reader's cache."""
    return workers["offline"]


@pytest.fixture(scope="session")
def published(publisher, tiny_bundle_folders, tiny_backbone) -> dict:
    """The bundle of shapes on the Hub, with its backbone; by what `Bundle.publish` returned."""
    return publisher.do(
        "publish", place=str(tiny_bundle_folders["shapes"]), namespace="me", backbone=str(tiny_backbone)
    )


@pytest.fixture(scope="session")
def encoders(hub, tmp_path_factory) -> tuple[str, list[str], list[Path]]:
    """A small random Dinov2 in two revisions: its Hub id, the commits, and the same as folders."""
    folders = [save_model("dinov2", tmp_path_factory.mktemp("encoder"), seed) for seed in (1, 2)]
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    repo = hub.add("model", "lab/random-dinov2", files[0])
    commits = [repo.commits[0][0], repo.commit(files[1])]
    return repo.repo_id, commits, folders


def wait_for(url: str, process: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    """Until a web page answers. Raises RuntimeError with the log when it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=20).close()
            return
        except urllib.error.HTTPError as error:
            if error.code != 503:  # still loading
                return
        except OSError:  # nobody there yet
            pass
        time.sleep(0.2)
    raise RuntimeError(f"The app did not start:\n{log.read_text('utf-8')}")


__all__ = ["READ", "WRITE"]
