"""Distillation: a student learns to give a frozen teacher's CLS tokens and patch grid (Hinton et al. 2015).

Features instead of class scores, as in the distilled models of DINOv2 (Oquab et al. 2023, section 5) and in FitNets
(Romero et al. 2015); the teacher's answers to a fixed set of crops are kept (see `answers`), as in "Knowledge
distillation: a good teacher is patient and consistent" (Beyer et al. 2022).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from medssl.errors import PretrainError
from medssl.pretrain.encoder import Encoder
from medssl.pretrain.objective import Objective, ViewBatch, ViewPlan

DEFAULTS = {
    # Blocks of the teacher as "9,12"; empty: those at three quarters of its depth and the last (CLS), the former alone.
    "cls_blocks": "",
    "patch_blocks": "",
    "teacher_size": 0,  # px; 0: that of the stored pictures, rounded down to the teacher's patch
    "crops": 4,  # of each picture; the first is the whole of it
    "smallest": 0.4,  # share of the picture's area
    "jitter": 0.5,  # of what the view policy allows to change of color, blur and noise
    "patch_weight": 1.0,
}


class Distill(Objective):
    """A student and two linear maps, from its pooled vector and from its patches to the teacher's answers.

    The answers are standardized by each dimension's mean and deviation over all of them, so that what all pictures have
    in common weighs nothing; the loss is one minus the cosine. `expect` says what the teacher gives.
    """

    defaults: dict[str, object] = DEFAULTS
    plan = ViewPlan(large_scale=(0.4, 1.0))

    def __init__(self, encoder: Encoder, options: dict) -> None:
        super().__init__(encoder, options)
        if not 0 < self.options["smallest"] <= 1 or self.options["crops"] < 1 or self.options["jitter"] < 0:
            raise PretrainError(
                "distill needs crops of at least 1, smallest above 0 and up to 1, and a jitter of 0 or more; given: "
                f"{self.options['crops']}, {self.options['smallest']}, {self.options['jitter']}."
            )
        self.encoder = encoder

    @property
    def kept(self) -> Encoder:
        return self.encoder

    def expect(self, cls_count: int, patch_count: int, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Answers of `cls_count` vectors and `patch_count` grids, with mean and deviation `[cls + patch counts, D]`."""
        width = mean.shape[-1]
        self.counts = (cls_count, patch_count)
        self.cls_head = nn.Linear(self.encoder.dimension, cls_count * width)
        self.patch_head = nn.Linear(self.encoder.dimension, patch_count * width)
        self.register_buffer("mean", mean.clone())
        self.register_buffer("deviation", deviation.clone())

    def forward(self, views: ViewBatch, progress: float) -> dict[str, torch.Tensor]:
        """The loss of a batch of views with the teacher's answers to them."""
        pooled, patches = self.encoder(views.large)
        first, grids = self.counts
        given = [self.cls_head(pooled).unflatten(-1, (first, -1))]
        # [B, P, grids * D] -> [B, grids * P, D]: one grid after the other, as the teacher answers.
        given.append(self.patch_head(patches).unflatten(-1, (grids, -1)).transpose(1, 2).flatten(1, 2))
        times = torch.tensor([1] * first + [patches.shape[1]] * grids, device=pooled.device)
        mean, deviation = (values.repeat_interleave(times, 0) for values in (self.mean, self.deviation))
        wanted = (views.answers.float() - mean) / deviation
        distance = 1 - cosine_similarity(torch.cat(given, 1).float(), wanted, dim=-1)
        losses = {"cls": distance[:, :first].mean(), "patches": distance[:, first:].mean()}
        total = losses["cls"] + self.options["patch_weight"] * losses["patches"]
        return {"loss": total, **losses, "features": pooled.detach()}
