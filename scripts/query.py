"""Send images to a running medssl app and print its answers: `medssl query` without an installed package."""

from __future__ import annotations

import _cli

from medssl.cli.query import main

if __name__ == "__main__":
    _cli.run(main)
