"""The recipe of a pretraining run: everything that decides its result, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from medssl.errors import PretrainError
from medssl.pretrain.byol import Byol
from medssl.pretrain.dino import Dino
from medssl.pretrain.distill import Distill
from medssl.pretrain.objective import Objective
from medssl.pretrain.simclr import SimCLR

BATCHES = ("mixed", "one-task")
METHODS: dict[str, type[Objective]] = {"dino": Dino, "simclr": SimCLR, "byol": Byol, "distill": Distill}


@dataclass(frozen=True)
class Recipe:
    """What a run does; two runs of the same recipe on the same machine give the same weights.

    `size` and `small_size` are the sides of large and small views in pixels, `stored_size` that of the images they are
    cut from; `batch_size` counts images over all processes; `epochs` are passes over the images; `batches` are "mixed",
    or of "one-task" each, so that telling tasks apart earns nothing. `teacher` is the backbone that "distill" learns
    from: a registry name, Hub id or folder. Raises PretrainError.
    """

    method: str = "dino"
    architecture: str | None = "medssl-tiny"
    init: str | None = None
    teacher: str | None = None
    epochs: float = 20.0
    batch_size: int = 96
    batches: str = "mixed"
    size: int = 98
    small_size: int = 42
    stored_size: int = 128
    views: str | None = None
    learning_rate: float = 1e-3
    last_learning_rate: float = 1e-6
    warmup: float = 0.08
    weight_decay: tuple[float, float] = (0.04, 0.2)
    clip: float = 3.0
    bf16: bool = True
    seed: int = 0
    options: dict[str, float | int | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise PretrainError(f"No method {self.method!r}. Allowed: {', '.join(METHODS)}.")
        if bool(self.architecture) == bool(self.init):
            raise PretrainError(
                "Give either an architecture to start from nothing, or init to go on from a checkpoint."
            )
        if bool(self.teacher) != (self.method == "distill"):
            raise PretrainError(
                f"The method is {self.method} and the teacher {self.teacher!r}; distill needs a teacher, and no other "
                "method has one."
            )
        for name in ("epochs", "size", "small_size", "stored_size", "learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise PretrainError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if self.batch_size < 4:
            raise PretrainError(f"batch_size is {self.batch_size}; at least 4 images are needed to compare.")
        if self.batches not in BATCHES:
            raise PretrainError(f"batches is {self.batches!r}; allowed: {', '.join(BATCHES)}.")
        if not 0 <= self.warmup < 1:
            raise PretrainError(f"warmup is {self.warmup}; it is a share of the run, from 0 to below 1.")
        known = METHODS[self.method].defaults
        for name, value in self.options.items():
            if name not in known:
                raise PretrainError(f"{self.method} has no option {name!r}. Allowed: {', '.join(known)}.")
            if isinstance(known[name], str) != isinstance(value, str):
                raise PretrainError(f"The option {name} is {value!r}; its default is {known[name]!r}.")
        if self.options.get("centring", "sinkhorn") not in ("sinkhorn", "centring"):
            raise PretrainError(f"centring is {self.options['centring']!r}; allowed: sinkhorn, centring.")

    def to_dict(self) -> dict:
        """The recipe in plain JSON types, options complete."""
        options = {**METHODS[self.method].defaults, **self.options}
        return {**asdict(self), "weight_decay": list(self.weight_decay), "options": options}
