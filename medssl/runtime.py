"""What the process runs on: the C allocator's habits, a ZeroGPU Space, names imported when first asked for."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

# From glibc's malloc.h; see mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEPT_BYTES = 256 * 2**20


@cache
def reuse_freed_memory() -> bool:
    """Let glibc keep up to 256 MB of freed memory instead of returning every large block to the kernel at once.

    Each forward otherwise pays a page fault for every 4 kB of its activations: a quarter of the time of a small ViT in
    bf16 on two cores (18 against 25 images a second). Returns whether it was done; other C libraries are left alone.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES) and libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


def default_cache() -> Path:
    """MEDSSL_CACHE, or medssl's folder in the user's cache."""
    return Path(os.environ.get("MEDSSL_CACHE") or Path.home() / ".cache" / "medssl")


def processors() -> int:
    """How many processors this process may use: its affinity where the system knows one, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_zero_gpu() -> bool:
    """Whether this is a ZeroGPU Space: it says so in the environment, and has the package."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true") and find_spec("spaces") is not None


def lazy_exports(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], object], list[str]]:
    """`__getattr__` and `__all__` of a package whose public names are imported when first asked for (PEP 562).

    `places` says in which module each name lives. So `--help` of a script does not wait for torch.
    """

    def find(name: str) -> object:
        if name in places:
            return getattr(import_module(places[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find, sorted(places)
