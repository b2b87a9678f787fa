"""What this machine and installation are: the first thing to look at, and to paste into a report."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "gradio",
    "qdrant-client",
    "qdrant-edge-py",
    "huggingface-hub",
    "pillow",
    "pydicom",
    "mcp",
)
ANSWER_WITHIN = 4.0


def installed(package: str) -> str:
    """The version of a package, or that it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The kind of processor, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def memory() -> str:
    """How much memory there is, and how much of it is free."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return "not known on this system"
    sizes = {line.split(":")[0]: int(line.split()[1]) / 2**20 for line in lines if line.split()[1:2]}
    return f"{sizes['MemTotal']:.1f} GiB, {sizes['MemAvailable']:.1f} GiB available"


def precision() -> str:
    """Which precision embeddings and heatmaps get, and why."""
    import torch

    from medssl.backbones.precision import Precision, native_bf16, native_int8
    from medssl.errors import BackboneError

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked = os.environ.get("MEDSSL_PRECISION", "auto")
    try:
        chosen = Precision.of(asked, device)
    except BackboneError as error:
        return f"none: {error}"
    if asked != "auto":
        return f"{chosen.embeddings}, heatmaps {chosen.scores}, because MEDSSL_PRECISION is {asked} ({device.type})"
    native = native_bf16(device)
    why = "has bf16 of its own" if native else "has no bf16 of its own, where it would be slower than float32"
    more = "; heatmaps would be faster with MEDSSL_PRECISION=int8" if native_int8(device) and not native else ""
    return f"{chosen.embeddings}, because this {device.type} {why}{more}"


def folder_size(folder: Path) -> str:
    """A folder with the size of its files."""
    if not folder.is_dir():
        return f"{folder} (empty)"
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return f"{folder} ({total / 2**20:.0f} MiB)"


def hub_answer() -> str:
    """Whether the Hub can be asked."""
    import httpx
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "not asked: HF_HUB_OFFLINE is set"
    try:
        status = httpx.get(f"{constants.ENDPOINT}/api/models?limit=1", timeout=ANSWER_WITHIN).status_code
    except httpx.HTTPError as error:
        return f"{constants.ENDPOINT} does not answer ({type(error).__name__}); folders and the cache still work"
    return f"{constants.ENDPOINT} answers ({status})"


def qdrant_answer() -> str:
    """Whether the Qdrant server answers, where one is named."""
    import httpx

    from medssl.library.server_store import URL_VARIABLE

    address = os.environ.get(URL_VARIABLE)
    if not address:
        return f"within medssl: in memory, large libraries in its cache ({URL_VARIABLE} is not set)"
    name = urlsplit(address).hostname
    try:
        httpx.get(address, timeout=ANSWER_WITHIN)
    except httpx.HTTPError as error:
        return f"the server on {name} does not answer ({type(error).__name__})"
    return f"the server on {name} answers"


def report() -> dict[str, str]:
    """Everything that doctor says, by name."""
    from medssl import __version__
    from medssl.runtime import default_cache, processors

    return {
        "medssl": f"{__version__} on Python {platform.python_version()}, {platform.system()} {platform.release()}",
        **{package: installed(package) for package in PACKAGES},
        "processor": f"{processor()}, {os.cpu_count()} in all, {processors()} for this process",
        "threads": os.environ.get("OMP_NUM_THREADS") or "as torch chooses (OMP_NUM_THREADS is not set)",
        "memory": memory(),
        "precision": precision(),
        "cache": folder_size(default_cache()),
        "Hub": hub_answer(),
        "Qdrant": qdrant_answer(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and print the report."""
    argparse.ArgumentParser(prog="medssl doctor", description=__doc__).parse_args(arguments)
    for name, text in report().items():
        print(f"{name:16} {text}", file=sys.stdout)
    return 0
