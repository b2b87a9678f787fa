"""The recipe of fine-tuning an encoder with labels: everything that decides its result, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from medssl.errors import PretrainError
from medssl.pretrain.views import POLICIES

LORA, LAST_BLOCKS, FULL = "lora", "last-blocks", "full"
# The peak learning rate of each mode: adapters start at nothing, whole weights from where pretraining left them.
PEAKS = {LORA: 1e-3, LAST_BLOCKS: 3e-5, FULL: 5e-5}
ABOVE_ZERO = ("batch_size", "accumulate", "blocks", "rank", "layer_decay", "clip", "patience")


@dataclass(frozen=True)
class FineTuneRecipe:
    """What fine-tuning does; two runs of the same recipe on the same machine give the same weights.

    `mode` is "lora" (low-rank adapters in every linear layer of the blocks, Hu et al. 2021, arXiv 2106.09685),
    "last-blocks" (the last `blocks` and what follows them) or "full". A step takes `batch_size` images over all
    processes, in `accumulate` forwards. `learning_rate` is that of the last layers at its peak (None: the mode's); each
    block below has `layer_decay` times that of the block above (Clark et al. 2020, arXiv 2003.10555). Training ends
    after `epochs`, or `patience` epochs after the lowest validation loss. `views` names the augmentation (None: the
    task's), whose crops cover at least `smallest_crop` of the image's area; a share `untouched` of the images enters as
    it will be seen in use, without which fine detail that every view blurs is unlearnt (Touvron et al. 2019, arXiv
    1906.06423). What is validated and kept is a moving average of the weights that reaches `average` epochs back (0:
    the last step's), which scatters less (Izmailov et al. 2018, arXiv 1803.05407). Raises PretrainError.
    """

    mode: str = LORA
    epochs: int = 20
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float | None = None
    layer_decay: float = 0.8
    weight_decay: float = 0.05
    warmup: float = 0.1
    label_smoothing: float = 0.0
    clip: float = 1.0
    patience: int = 4
    blocks: int = 3
    rank: int = 8
    views: str | None = None
    smallest_crop: float = 0.7
    untouched: float = 0.5
    average: float = 1.0
    bf16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in PEAKS:
            raise PretrainError(f"There is no mode {self.mode!r} of fine-tuning. Allowed: {', '.join(PEAKS)}.")
        for name in ABOVE_ZERO:
            if not getattr(self, name) > 0:
                raise PretrainError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if self.epochs < 1 or self.peak <= 0:
            raise PretrainError(
                f"epochs is {self.epochs} and learning_rate {self.peak}; allowed: 1 epoch or more, a rate above 0."
            )
        if self.layer_decay > 1 or self.smallest_crop > 1 or self.smallest_crop <= 0:
            raise PretrainError(
                f"layer_decay is {self.layer_decay} and smallest_crop {self.smallest_crop}; allowed: above 0, at "
                "most 1."
            )
        if not (self.average >= 0 and 0 <= self.untouched <= 1):
            raise PretrainError(
                f"average is {self.average} and untouched {self.untouched}; allowed: 0 epochs or more, a share from 0 "
                "to 1."
            )
        for name in ("warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise PretrainError(f"{name} is {getattr(self, name)}; allowed: from 0 to below 1.")
        if self.views is not None and self.views not in POLICIES:
            raise PretrainError(f"There are no views named {self.views!r}. Allowed: {', '.join(POLICIES)}.")

    @property
    def peak(self) -> float:
        """The peak learning rate."""
        return PEAKS[self.mode] if self.learning_rate is None else self.learning_rate

    def to_dict(self) -> dict:
        """The recipe in plain JSON types, the learning rate as it is used."""
        return {**asdict(self), "learning_rate": self.peak}
