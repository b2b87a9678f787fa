"""The state of a run in one file, from which it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from medssl.errors import PretrainError
from medssl.files import written_whole
from medssl.pretrain.objective import Objective


class Checkpoint:
    """The state of a run in one file, written beside and renamed; refused by a run of another recipe."""

    def __init__(self, file: Path, identity: dict) -> None:
        self.file, self.identity = file, identity

    def load(self, objective: Objective, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
        """Put the saved state in place; returns the steps done and the seconds they took (0 without a file)."""
        if not self.file.exists():
            return 0, 0.0
        try:
            state = torch.load(self.file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            raise PretrainError(f"{self.file} cannot be read: {error}. Remove it to start anew.") from error
        given, kept = json.loads(json.dumps(self.identity)), state["identity"]
        differing = [name for name in given if given[name] != kept.get(name)]
        if differing:
            name = differing[0]
            raise PretrainError(
                f"{self.file.parent.parent} holds a run of another recipe: its {name} is {kept.get(name)!r}, asked for "
                f"is {given[name]!r}. Give the same recipe to go on, or another folder."
            )
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        return state["step"], state["seconds"]

    def save(self, objective: Objective, optimizer: torch.optim.Optimizer, step: int, seconds: float) -> None:
        """Write the state whole."""
        state = {
            "identity": json.loads(json.dumps(self.identity)),
            "objective": objective.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "seconds": seconds,
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(self.file) as beside:
            torch.save(state, beside)
