"""What a figure was measured on: processor, cores, how busy they were, and the versions of what did the work."""

from __future__ import annotations

import os
import platform
from pathlib import Path

PACKAGES = ("torch", "transformers", "numpy", "qdrant-client", "qdrant-edge-py", "gradio")
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe() -> dict:
    """The machine and the versions, in plain JSON types."""
    from medssl.cli.doctor import installed, memory, processor
    from medssl.runtime import processors

    try:
        flags = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        flags = set()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": processor(),
        "processors": processors(),
        "features": [feature for feature in FEATURES if feature in flags],
        "memory": memory(),
        "load": busy,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {package: installed(package) for package in PACKAGES},
    }


def line(found: dict) -> str:
    """The same in one line of text."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    busy = "" if found["load"] is None else f", load {found['load']:.1f}"
    features = ", ".join(found["features"]) or "features not known"
    return (
        f"{found['processor']}, {found['processors']} processors ({features}){busy}, {found['memory']}; "
        f"Python {found['python']}, {versions}"
    )
