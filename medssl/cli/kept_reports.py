"""The files of a report that an app made, kept in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

REPORT_FILES = {"html": "report.html", "json": "report.json", "dicom": "overlay.dcm"}


def keep_files(made: Mapping[str, str | None], folder: str | Path, prefix: str = "") -> list[str]:
    """Copy what an endpoint made of a report into the folder, under names that begin so. Returns their places."""
    return [
        str(shutil.copyfile(place, Path(folder) / f"{prefix}{name}"))
        for kind, name in REPORT_FILES.items()
        if (place := made.get(kind))
    ]
