"""What a run writes of itself while it goes on."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from medssl.pretrain.journal import Journal, effective_rank
from medssl.pretrain.objective import Objective
from medssl.pretrain.recipe import Recipe
from medssl.pretrain.watch import Watch

# Facts of a step that are written down, where an objective has them.
REPORTED = ("loss", "dino", "ibot", "koleo", "cls", "patches", "teacher_entropy", "usage_entropy")


@dataclass(frozen=True)
class Reports:
    """How often, in steps, a run writes: a row of the log, a checkpoint, and the watched kNN (0: never)."""

    log_every: int = 20
    checkpoint_every: int = 200
    watch_every: int = 0
    progress: bool = True


class Chronicle:
    """What the main process writes of a run: the log's rows, the watched kNN scores, and a warning on collapse."""

    def __init__(
        self,
        folder: Path,
        start: int,
        reports: Reports,
        objective: Objective,
        watch: Mapping[str, str | Path] | None,
        recipe: Recipe,
    ) -> None:
        self.journal = Journal(folder, start)
        self.reports, self.objective = reports, objective
        self.watched = Watch(watch, recipe.size, recipe.seed) if watch and reports.watch_every else None
        prototypes = objective.options.get("prototypes")
        self.largest_entropy = math.log(prototypes) if prototypes else None

    def add(self, facts: dict[str, float], found: dict[str, torch.Tensor], last: bool) -> str:
        """Write a row of a step's facts and what its forward found; returns a few words for the progress bar."""
        facts = {**facts, **{name: found[name].item() for name in REPORTED if name in found}}
        facts["effective_rank"] = effective_rank(found["features"])
        if self.watched and (facts["step"] % self.reports.watch_every == 0 or last):
            facts |= self.watched.scores(self.objective.kept)
        self.journal.add(facts)
        if warning := self.journal.collapse(facts, self.largest_entropy):
            tqdm.write(f"warning: {warning}", file=sys.stderr)
        return f"loss {facts['loss']:.3f}, rank {facts['effective_rank']:.0f}"
