"""The Spaces entry point, and `medssl serve` without an installed package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.cli.serve import build, choose_bundles, main

if TYPE_CHECKING:
    import gradio as gr

BESIDE = Path(__file__).resolve().parent / "bundles"


def __getattr__(name: str) -> gr.Blocks:
    """`app.demo`, built when first asked for, so that importing this file or running it loads nothing twice."""
    if name != "demo":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["demo"] = build(choose_bundles((), BESIDE))
    return globals()["demo"]


if __name__ == "__main__":
    sys.exit(main(beside=BESIDE))
