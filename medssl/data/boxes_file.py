"""Writing a boxes.csv, whole or not at all, with every box that was drawn and the way back."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from medssl.data.annotations import BOXES_FILE, Box, read_boxes_file
from medssl.data.rows import BOX_COLUMNS
from medssl.errors import DataError
from medssl.files import written_whole


class BoxesFile:
    """The boxes.csv of a folder: by picture its boxes, an empty list where somebody looked and found no lesion.

    Every change is on the disk when the method returns. Raises DataError where the file cannot be read or written.
    """

    def __init__(self, folder: Path, known: Mapping[str, dict]) -> None:
        self.path = folder / BOXES_FILE
        self.boxes: dict[str, list[Box]] = read_boxes_file(self.path, known) if self.path.is_file() else {}
        self._before: list[tuple[str, list[Box] | None]] = []

    def add(self, name: str, box: Box) -> None:
        """One more box of a picture."""
        self._change(name, [*self.boxes.get(name, []), box])

    def say_none(self, name: str) -> None:
        """The picture was looked at, and there is no lesion."""
        self._change(name, [])

    def undo(self) -> str | None:
        """Take the last change of this session back. Returns the picture's name, None where there is nothing left."""
        if not self._before:
            return None
        name, boxes = self._before[-1]
        self._write(self._with(name, boxes))
        self._before.pop()
        return name

    def _change(self, name: str, boxes: list[Box]) -> None:
        before = name, self.boxes.get(name)
        self._write(self._with(name, boxes))
        self._before.append(before)

    def _with(self, name: str, boxes: list[Box] | None) -> dict[str, list[Box]]:
        changed = {other: kept for other, kept in self.boxes.items() if other != name}
        return changed if boxes is None else {**changed, name: boxes}

    def _write(self, boxes: dict[str, list[Box]]) -> None:
        try:
            with written_whole(self.path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["file_name", *BOX_COLUMNS])
                for name, several in boxes.items():
                    writer.writerows([name, *(f"{value:.6f}" for value in box)] for box in several)
                    if not several:
                        writer.writerow([name, *[""] * len(BOX_COLUMNS)])
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be written: {error.strerror or error}. What it held before is as it was; make "
                "room or make the folder writable."
            ) from error
        self.boxes = boxes
