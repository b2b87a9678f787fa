"""How xdist deals tests out with `--dist loadfile`."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling


class RoomScheduling(LoadFileScheduling):
    """A file to one worker; the Hub's files all to one, as they share the processes of the Hub's clients."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/hub" if nodeid.startswith("tests/hub/") else super()._split_scope(nodeid)
