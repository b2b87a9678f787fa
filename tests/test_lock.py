"""requirements.lock pins what requirements.txt pins, each file with its hash."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pins(text: str) -> set[tuple[str, str]]:
    """(name, version) of every requirement."""
    lines = (line.split("#")[0].split(" \\")[0].strip() for line in text.splitlines())
    requirements = [Requirement(line) for line in lines if line and not line.startswith(("-", "--hash"))]
    return {(item.name.lower().replace("_", "-"), str(item.specifier)) for item in requirements}


def test_the_lock_holds_every_pin_of_the_requirements():
    lock = pins((ROOT / "requirements.lock").read_text("utf-8"))
    wanted = pins((ROOT / "requirements.txt").read_text("utf-8"))
    assert wanted - lock == {("torch", "==2.13.0")}, "run scripts/lock.sh"


def test_every_package_of_the_lock_has_a_hash():
    text = "\n".join(
        line for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines() if not line.startswith("#")
    )
    packages = re.split(r"\n(?=\S)", text.strip())
    assert len(packages) > 80
    assert [package.split()[0] for package in packages if not HASH.search(package)] == []
