"""Small real parts for the tests: image folders, a random-weight backbone, bundles, a running app."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import warm
from tests.slow import is_slow

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# What tests compare with is computed on the processor. Before torch is imported; a GPU is asked for by its number.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

ROOT = warm.ROOT
SIDE = 64
TINY_TASKS = {"shapes": ("dots", "plain", "stripes"), "tints": ("amber", "jade", "violet")}
STARTED_WITHIN = 90
# For tests of other things: choosing the kind of head and checking the explainers takes seconds a build.
UNCHOSEN = {"head": "linear", "explainer_seconds": 0}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that a developer's default run leaves out; files that have one go first.

    Several workers then end with quick tests, and none is left with minutes of work while the others have none.
    """
    slow_files = set()
    for item in items:
        if is_slow(item.nodeid, getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
            slow_files.add(item.path)
    items.sort(key=lambda item: item.path not in slow_files)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Whole files and the whole Hub to one worker each; xdist's own choice for other ways of dealing."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.dealing import RoomScheduling

    config.option.loadscopereorder = False  # in the order of pytest_collection_modifyitems
    return RoomScheduling(config, log)


def draw(label: str, random: np.random.Generator) -> np.ndarray:
    """One 64 px image of a class, told apart by texture (shapes) or colour (tints), with seeded noise.

    Some images hardly show their class, so that a fitted head stays unsure and explanations have evidence.
    """
    rows, columns = np.mgrid[:SIDE, :SIDE]
    phase, strength = random.integers(0, 8), random.uniform(0, 0.7)
    pattern = np.zeros((SIDE, SIDE))
    if label == "dots":
        pattern[((rows + phase) % 12 < 5) & ((columns + phase) % 12 < 5)] = 120
    elif label == "stripes":
        pattern[(rows + phase) % 8 < 4] = -90
    tint = {"amber": (60, 10, -60), "jade": (-60, 50, -10), "violet": (20, -60, 70)}.get(label, (0, 0, 0))
    picture = 110 + strength * (pattern[..., None] + np.array(tint)) + random.normal(0, 25, (SIDE, SIDE, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def make_folder(folder: Path, labels: tuple[str, ...], seed: int, count: int = 60) -> Path:
    """An imagefolder with metadata.csv: `count` images, two a group, groups wholly in one split."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", "label", "split", "group_id", "source"])
        writer.writeheader()
        for index in range(count):
            label, pair = labels[index % 3], index // 6
            split = "test" if pair % 5 == 4 else "val" if pair % 5 == 3 else "train"
            name = f"{label}-{index:03d}.png"
            Image.fromarray(draw(label, random)).save(folder / name)
            group = f"{label}-{pair}"
            writer.writerow(dict(zip(writer.fieldnames, (name, label, split, group, "synthetic"), strict=True)))
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> dict[str, Path]:
    """The image folders of two synthetic tasks of three classes each."""
    root = tmp_path_factory.mktemp("data")
    return {name: make_folder(root / name, labels, seed) for seed, (name, labels) in enumerate(TINY_TASKS.items())}


def make_lesions(folder: Path, count: int = 72) -> Path:
    """An imagefolder of noise with a bright ("warm") or a dark ("cold") disc anywhere, or none, and the discs' boxes.

    A third of the pictures each; two a group, groups wholly in one split.
    """
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    boxes = ("box_left", "box_top", "box_right", "box_bottom")
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "split", "group_id", *boxes])
        for index in range(count):
            label, pair = ("cold", "none", "warm")[index % 3], index // 6
            picture = 110 + random.normal(0, 12, (SIDE, SIDE))
            y, x, radius = *random.uniform(12, SIDE - 12, 2), random.uniform(8, 11)
            box = ["", "", "", ""]
            if label != "none":
                picture[np.hypot(rows - y, columns - x) < radius] += 110 if label == "warm" else -90
                ends = (x - radius, y - radius, x + radius, y + radius)
                box = [f"{min(max(end / SIDE, 0), 1):.4f}" for end in ends]
            split = "test" if pair % 4 == 3 else "val" if pair % 4 == 2 else "train"
            name = f"{label}-{index:03d}.png"
            Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / name)
            writer.writerow([name, label, split, f"{label}-{pair}", *box])
    return folder


@pytest.fixture(scope="session")
def lesion_data(tmp_path_factory) -> Path:
    """The image folder of a synthetic task whose lesions have boxes."""
    return make_lesions(tmp_path_factory.mktemp("lesions") / "discs")


@pytest.fixture(scope="session")
def lesion_bundle_folder(lesion_data, tiny_backbone, tmp_path_factory) -> Path:
    """A bundle with a localizer and regions on disk, built by the package's own path."""
    from medssl.bundle.build import build_bundle

    folder = tmp_path_factory.mktemp("lesion-bundle") / "discs"
    build_bundle(lesion_data, "discs", tiny_backbone, folder, seed=0, progress=False, regions=True, **UNCHOSEN)
    return folder


@pytest.fixture(scope="session")
def lesion_bundle(lesion_bundle_folder):
    """That bundle, loaded from disk."""
    from medssl.bundle.bundle import Bundle

    return Bundle.load(lesion_bundle_folder)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory) -> Path:
    """A random-weight Dinov2 (width 32, 2 blocks, patch 14, 56 px) saved as transformers saves it."""
    import torch
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("backbone") / "tiny-dinov2"
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        patch_size=14,
        image_size=56,
        initializer_range=0.4,  # the default 0.02 leaves random features almost constant
    )
    Dinov2Model(config).eval().save_pretrained(folder)
    side = {"height": 56, "width": 56}
    BitImageProcessor(size=side, crop_size=side, do_center_crop=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle_folders(tiny_data, tiny_backbone, tmp_path_factory) -> dict[str, Path]:
    """The bundles of both tasks on disk, built by the package's own path."""
    from medssl.bundle.build import build_bundle

    root = tmp_path_factory.mktemp("bundles")
    for name, folder in tiny_data.items():
        labels = TINY_TASKS[name]
        build_bundle(folder, name, tiny_backbone, root / name, labels=labels, seed=0, progress=False, **UNCHOSEN)
    return {name: root / name for name in tiny_data}


@pytest.fixture(scope="session")
def tiny_bundles(tiny_bundle_folders) -> dict:
    """Task name -> Bundle, loaded from disk."""
    from medssl.bundle.bundle import Bundle

    return {name: Bundle.load(folder) for name, folder in tiny_bundle_folders.items()}


class App:
    """A running `python app.py` in a process of its own; `fresh` is one that has imported nothing, as a user's."""

    def __init__(self, arguments: list[str], log: Path, fresh: bool = False) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{port}", log
        self.cache = log.parent / "cache"
        self.cache.mkdir()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MEDSSL_", "GRADIO_TEMP"))}
        environment = dict(kept, GRADIO_ANALYTICS_ENABLED="False", TMPDIR=str(self.cache))
        with open(log, "w", encoding="utf-8") as output:
            command = [str(ROOT / "app.py"), "--port", str(port), *arguments]
            given = {"stdout": output, "stderr": output, "env": environment, "cwd": ROOT}
            self.process = (
                subprocess.Popen([sys.executable, *command], **given) if fresh else warm.start(command, **given)
            )

    def wait(self) -> App:
        """Until the page answers. Raises RuntimeError with the log when it does not."""
        end = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url, timeout=20).close()
                return self
            except OSError:  # nobody there yet, or 503: still loading
                time.sleep(0.2)
        self.close()
        raise RuntimeError(f"The app did not start:\n{self.log.read_text('utf-8')}")

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def app(tiny_bundle_folders, tmp_path_factory):
    """The page over both tiny bundles, in another process."""
    arguments = ["--bundle", *map(str, tiny_bundle_folders.values())]
    running = App(arguments, tmp_path_factory.mktemp("app") / "log.txt").wait()
    yield running
    running.close()


@pytest.fixture(scope="session")
def client(app):
    """A gradio client of the running app."""
    from gradio_client import Client

    return Client(app.url, verbose=False)


@pytest.fixture
def broken_file(tmp_path) -> Path:
    """A file that calls itself a PNG and is none."""
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"not a picture" * 40)
    return path


def sample(folder: Path, label: str) -> Path:
    """The first image of a class in the test split."""
    with open(folder / "metadata.csv", encoding="utf-8") as file:
        return next(
            folder / row["file_name"] for row in csv.DictReader(file) if (row["split"], row["label"]) == ("test", label)
        )


@pytest.fixture(scope="session")
def shapes_image(tiny_data) -> Path:
    """An image of the first tiny task."""
    return sample(tiny_data["shapes"], "dots")


@pytest.fixture(scope="session")
def shapes_analysis(tiny_bundles, shapes_image):
    """What Python says of that image."""
    return tiny_bundles["shapes"].analyze(shapes_image, top_k=4)
