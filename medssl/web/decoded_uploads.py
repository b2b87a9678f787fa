"""Images that came inside an MCP call, as files: Gradio decodes them into its folder and never looks at them again."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableSet
from pathlib import Path

from gradio import mcp

# How Gradio 6.31 names what it decodes: <folder>/<hash>/file.<ending>.
DECODED = ("*/file", "*/file.*")


class DecodedUploads(MutableSet):
    """A set of paths for `Blocks.temp_file_sets`, whose old files Gradio deletes: what lies there now.

    Only files written since this object was made count, as the folder may be another app's too.
    """

    def __init__(self) -> None:
        self.since = time.time()

    def __iter__(self) -> Iterator[str]:
        for pattern in DECODED:
            for path in list(Path(mcp.DEFAULT_TEMP_DIR).glob(pattern)):
                if path.is_file() and path.lstat().st_ctime >= self.since:
                    yield str(path)

    def __contains__(self, path: object) -> bool:
        return path in list(self)

    def __len__(self) -> int:
        return len(list(self))

    def add(self, path: str) -> None:
        """Nothing: a file belongs to it by lying there."""

    def discard(self, path: str) -> None:
        """Nothing: a file leaves it by being deleted."""
