"""What every script shares: the checkout on the path, so that nothing needs to be installed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from medssl.cli.run import CANNOT_RUN, INTERRUPTED, named_folders, run  # noqa: E402

__all__ = ["CANNOT_RUN", "INTERRUPTED", "named_folders", "run"]
