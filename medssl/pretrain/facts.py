"""What pretraining.json of a pretrained folder holds: one run, and the runs that it started from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import FiniteFloat, StringConstraints, TypeAdapter
from typing_extensions import NotRequired, TypedDict

from medssl.errors import PretrainError
from medssl.shapes import check_shape, read_json

FACTS_FILE = "pretraining.json"
MOST_RUNS = 100


class Hardware(TypedDict):
    """What a run was computed on."""

    name: str
    bf16: bool
    threads: int


class Facts(TypedDict):
    """The facts of a run that are read; others are kept as they are."""

    method: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+$")]
    options: dict[str, int | float | str]
    images: dict[str, int]
    seconds: FiniteFloat
    processes: int
    hardware: Hardware
    init: NotRequired[str | None]
    started_from: NotRequired[dict[str, Any] | None]


SHAPE = TypeAdapter(Facts)


def read_runs(folder: Path) -> list[dict]:
    """The facts of a pretrained folder's runs, the first run first. Raises PretrainError where there are none."""
    path = folder / FACTS_FILE
    if not path.is_file():
        raise PretrainError(f"{folder} holds no {FACTS_FILE}. Give a folder that scripts/pretrain.py wrote.")
    runs = [read_json(path, str(path), PretrainError)]
    check_shape(SHAPE, runs[0], str(path), PretrainError)
    while earlier := runs[0].get("started_from"):
        if len(runs) == MOST_RUNS:
            raise PretrainError(f"{path} names more than {MOST_RUNS} runs before it. Write it anew.")
        check_shape(SHAPE, earlier, f"started_from in {path}", PretrainError)
        runs.insert(0, earlier)
    return runs
