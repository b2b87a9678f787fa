"""What finetuning.json of a tuned folder holds, and whether images that are measured on were tuned on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from datasets import Dataset
from pydantic import FiniteFloat, StringConstraints, TypeAdapter
from typing_extensions import NotRequired, TypedDict

from medssl.backbones.backbone import Backbone
from medssl.errors import DataError, PretrainError
from medssl.pretrain.facts import Hardware
from medssl.pretrain.finetune_images import KEY_LENGTH, file_keys
from medssl.shapes import check_shape, read_json

TUNING_FILE = "finetuning.json"


class TuningFacts(TypedDict):
    """The facts of a tuned encoder that are read; others are kept as they are. `seen` are hashes of files."""

    task: str
    labels: list[str]
    data: str
    base: dict[str, str]
    recipe: dict[str, Any]
    seed: int
    images: dict[str, int]
    groups: dict[str, int]
    epochs_run: int
    best_epoch: int
    stopped: bool
    skipped: int
    seconds: FiniteFloat
    processes: int
    hardware: Hardware
    seen: list[Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{KEY_LENGTH}}}$")]]
    verdict: dict[str, Any]
    started_from: NotRequired[dict[str, Any] | None]


SHAPE = TypeAdapter(TuningFacts)


def read_tuning(folder: Path | None) -> dict | None:
    """The facts of a tuned encoder's folder; None where it is no tuned one. Raises PretrainError for damaged ones."""
    path = folder and folder / TUNING_FILE
    if not path or not path.is_file():
        return None
    facts = read_json(path, str(path), PretrainError)
    check_shape(SHAPE, facts, str(path), PretrainError)
    return facts


def check_unseen(backbone: Backbone, dataset: Dataset) -> None:
    """Raises DataError where a backbone was tuned on images of the data set's test split: it may know them by heart.

    Files are compared by what they hold. A tuned encoder that was tuned again knows the images of both.
    """
    facts = read_tuning(backbone.folder)
    test = dataset.select(np.flatnonzero(np.asarray(dataset["split"][:], dtype=object) == "test"))
    keys = file_keys(test) if facts else []
    while facts:
        check_shape(SHAPE, facts, TUNING_FILE, PretrainError)
        seen = set(facts["seen"])
        known = sum(key in seen for key in keys)
        if known:
            raise DataError(
                f"{known} of the {len(keys)} test images are among those that the backbone {Path(backbone.id).name} "
                f"was fine-tuned on (data {facts['data']}, seed {facts['seed']}), so that figures on them would be of "
                "memory. Split as it was split: the same seed and the same data, or name the splits in metadata.csv."
            )
        facts = facts.get("started_from")
        if facts is not None and "seen" not in facts:  # a pretraining run: it used no labels
            facts = None
