"""`medssl finetune` without an installed package."""

from __future__ import annotations

import _cli

from medssl.cli.finetune import main

if __name__ == "__main__":
    _cli.run(main)
