"""Small labelled pictures whose class is a pattern and whose colours say nothing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PATTERNS = ("fine", "coarse", "dots", "rings")


def pattern(kind, random, side=48):
    """One picture `[side, side, 3]`: a pattern at a drawn place and angle, in two drawn colours."""
    y, x = np.mgrid[:side, :side] - random.uniform(0, side, 2)[:, None, None]
    angle = random.uniform(0, np.pi)
    along, across = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
    waves = {
        "fine": np.sin(along * 2 * np.pi / 5),
        "coarse": np.sin(along * 2 * np.pi / 14),
        "dots": np.sin(along * 2 * np.pi / 9) * np.sin(across * 2 * np.pi / 9),
        "rings": np.sin(np.hypot(x, y) * 2 * np.pi / 9),
    }
    alpha = (1 + np.sign(waves[kind]))[..., None] / 2
    first, second = random.uniform(30, 225, (2, 3))
    noise = random.normal(0, 12, (side, side, 1))
    return np.clip(alpha * first + (1 - alpha) * second + noise, 0, 255).astype(np.uint8)


def write_patterns(folder: Path, per_class: int, seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    for kind in PATTERNS:
        (folder / kind).mkdir(parents=True)
        for index in range(per_class):
            Image.fromarray(pattern(kind, random)).save(folder / kind / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="session")
def patterns(tmp_path_factory):
    return write_patterns(tmp_path_factory.mktemp("patterns") / "patterns", 60)


@pytest.fixture(scope="session")
def more_patterns(tmp_path_factory):
    """Other pictures of the same patterns, to measure on."""
    return write_patterns(tmp_path_factory.mktemp("more") / "patterns", 150, seed=1)


@pytest.fixture(scope="session")
def few_patterns(tmp_path_factory):
    return write_patterns(tmp_path_factory.mktemp("few") / "patterns", 8)
