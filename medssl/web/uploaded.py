"""One upload of several pictures: where each lies, and what was found of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from medssl.bundle.many import PictureRow
from medssl.images.safe_reader import SafePictures
from medssl.web.work import Work


@dataclass
class Uploaded(Work):
    """The pictures of an upload, decoded when asked for, and the rows found so far: of one task, in their order.

    `group` is the id of the group that they belong to, whose own cases are left out of what they are compared with;
    empty for none.
    """

    pictures: SafePictures
    task: str = ""
    group: str = ""
    rows: list[PictureRow] = field(default_factory=list)
    halted: list[PictureRow] | None = None  # the rows of the run that Stop ended

    def __len__(self) -> int:
        return len(self.pictures)

    def halt(self) -> str:
        """As `end`, for somebody who pressed Stop and is told of the rows found so far."""
        self.halted = self.rows
        return self.end()

    def begin(self, task: str, group: str) -> list[PictureRow]:
        """A list of its own for a new run, which goes on where a stopped one of the same task and group ended."""
        if (self.task, self.group) != (task, group):
            self.task, self.group, self.rows = task, group, []
        self.end()
        self.rows = list(self.rows)
        return self.rows
