"""DINOv2's objective: DINO on CLS, iBOT on masked patches, KoLeo (Oquab et al. 2023, arXiv 2304.07193)."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.nn.functional import gelu, log_softmax, normalize

from medssl.errors import PretrainError
from medssl.pretrain.distributed import gather, reduce_sum
from medssl.pretrain.encoder import Encoder
from medssl.pretrain.objective import Objective, ViewBatch, ViewPlan, ema_momentum, move_average

SINKHORN_ROUNDS = 3
CENTER_MOMENTUM = 0.9
MASKED_SHARE = 0.5  # of the global views
MASK_RATIO = (0.1, 0.5)  # of a masked view's patches
KOLEO_EPSILON = 1e-8
DEFAULTS = {
    "prototypes": 512,
    "head_hidden": 1024,
    "bottleneck": 128,
    "centring": "sinkhorn",
    "student_temperature": 0.1,
    "teacher_temperature": 0.05,
    "teacher_temperature_start": 0.04,
    "teacher_warmup": 0.3,
    "momentum": 0.99,
    "ibot_weight": 1.0,
    "koleo_weight": 0.1,
}


class PrototypeHead(nn.Module):
    """MLP to a bottleneck on the unit sphere, then `prototypes` directions of unit length: logits `[B, K]`."""

    def __init__(self, dimension: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(dimension, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, bottleneck)]
        )
        for layer in self.layers:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        # Only directions count; short vectors let Adam, whose steps have one length, turn them in hundreds of steps.
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck) * 0.02)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        first, second, last = self.layers
        point = normalize(last(gelu(second(gelu(first(features))))).float(), dim=-1)
        return point.to(features.dtype) @ normalize(self.prototypes.float(), dim=-1).to(features.dtype).T


def sinkhorn(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Assignments `[N, K]` of cosines `[N, K]` with equal use of every prototype (Caron et al. 2020, arXiv 2006.09882).

    Sums run over all processes.
    """
    scores = torch.exp((logits.float() - 1) / temperature)  # no cosine exceeds 1, so nothing overflows
    total = reduce_sum(scores.new_tensor(float(len(scores))))
    for _ in range(SINKHORN_ROUNDS):
        scores = scores / reduce_sum(scores.sum(0, keepdim=True)).clamp_min(1e-30) / scores.shape[1]
        scores = scores / scores.sum(1, keepdim=True).clamp_min(1e-30) / total
    return scores * total


def cross_entropy(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """-sum teacher * log softmax(student / temperature) `[N]`, of logits and probabilities `[N, K]`."""
    return -(teacher * log_softmax(student.float() / temperature, dim=-1)).sum(-1)


def koleo(features: torch.Tensor) -> torch.Tensor:
    """-mean log distance to the nearest neighbour of features `[N, D]` on the sphere (Sablayrolles et al. 2019)."""
    points = normalize(features.float(), dim=-1)
    every = gather(points)
    with torch.no_grad():
        similarity = every @ every.T
        nearest = similarity.fill_diagonal_(-2).argmax(1)
    # Each process owns its rows; their mean over processes is the mean over all.
    distance = (every - every[nearest] + KOLEO_EPSILON).norm(dim=-1)
    return -(distance + KOLEO_EPSILON).log().mean()


def random_masks(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Bool masks `[count, side * side]`: half of them empty, the others of random blocks up to a drawn share.

    Block-wise masking of BEiT (Bao et al. 2021, arXiv 2106.08254), as iBOT and DINOv2 use it.
    """
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    draws = torch.rand(count, 64, 4, generator=generator)
    chosen = torch.rand(count, generator=generator) < MASKED_SHARE
    wanted = MASK_RATIO[0] + (MASK_RATIO[1] - MASK_RATIO[0]) * torch.rand(count, generator=generator)
    if count and not chosen.any():
        chosen[0] = True
    for index in chosen.nonzero()[:, 0].tolist():
        target = max(1, round(float(wanted[index]) * side * side))
        for area, ratio, top, left in draws[index].tolist():
            missing = target - int(masks[index].sum())
            if missing <= 0:
                break
            size = max(1.0, min(missing, 4 + area * target))
            aspect = math.exp((2 * ratio - 1) * math.log(1 / 0.3))
            height = min(side, max(1, round(math.sqrt(size * aspect))))
            width = min(side, max(1, round(math.sqrt(size / aspect))))
            row, column = int(top * (side - height + 1)), int(left * (side - width + 1))
            masks[index, row : row + height, column : column + width] = True
    return masks.flatten(1)


class Dino(Objective):
    """Student and EMA teacher over multi-crop views; the teacher is what is kept."""

    defaults = DEFAULTS
    plan = ViewPlan(large_scale=(0.3, 1.0), small_scale=(0.06, 0.3), small_count=6, masked=True)

    def __init__(self, encoder: Encoder, options: dict) -> None:
        super().__init__(encoder, options)
        if not encoder.can_mask:
            raise PretrainError(
                f"dino hides patches, and {type(encoder.model).__name__} has no mask token. Use simclr or byol, or a "
                "Dinov2 architecture (medssl-tiny, dinov2-small, dinov2-base)."
            )
        options = self.options
        sizes = (encoder.dimension, options["head_hidden"], options["bottleneck"], options["prototypes"])
        self.student = nn.ModuleDict(
            {"encoder": encoder, "cls_head": PrototypeHead(*sizes), "patch_head": PrototypeHead(*sizes)}
        )
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.register_buffer("cls_centre", torch.zeros(1, options["prototypes"]))
        self.register_buffer("patch_centre", torch.zeros(1, options["prototypes"]))

    @property
    def kept(self) -> Encoder:
        return self.teacher["encoder"]

    def train(self, mode: bool = True) -> Dino:
        """As of any module, but that the teacher is never stochastic."""
        super().train(mode)
        self.teacher.eval()
        return self

    def assign(self, logits: torch.Tensor, center: torch.Tensor, temperature: float) -> torch.Tensor:
        """The teacher's probabilities `[N, K]`, kept from collapse by Sinkhorn-Knopp or by centring."""
        if self.options["centring"] == "sinkhorn":
            return sinkhorn(logits, temperature)
        probabilities = torch.softmax((logits.float() - center) / temperature, dim=-1)
        count = reduce_sum(logits.new_tensor(float(len(logits)), dtype=torch.float32))
        mean = reduce_sum(logits.float().sum(0, keepdim=True)) / count
        if self.training:
            center.mul_(CENTER_MOMENTUM).add_(mean, alpha=1 - CENTER_MOMENTUM)
        return probabilities

    def forward(self, views: ViewBatch, progress: float) -> dict[str, torch.Tensor]:
        """The losses of a batch of views; `progress` is the share of the run done, 0 to 1."""
        options, student, teacher = self.options, self.student, self.teacher
        large, small, masks = views.large, views.small, views.masks
        batch = len(large) // 2
        warm = min(1.0, progress / max(options["teacher_warmup"], 1e-9))
        heat = options["teacher_temperature_start"] * (1 - warm) + options["teacher_temperature"] * warm
        with torch.no_grad():
            pooled, patches = teacher["encoder"](large)
            hidden = patches[masks]
            cls_target = self.assign(teacher["cls_head"](pooled), self.cls_centre, heat)
            patch_target = self.assign(teacher["patch_head"](hidden), self.patch_centre, heat)
        student_pooled, student_patches = student["encoder"](large, masks)
        cool = options["student_temperature"]
        large_logits = student["cls_head"](student_pooled)
        # Each large view is compared with the teacher's assignment of the other one.
        terms = [cross_entropy(large_logits, cls_target.roll(batch, 0), cool).mean() * 2]
        pairs = 2
        if len(small):
            count = len(small) // batch
            logits = student["cls_head"](student["encoder"](small)[0])
            for target in cls_target.chunk(2):
                terms.append(cross_entropy(logits, target.repeat(count, 1), cool).mean() * count)
                pairs += count
        per_view = masks.sum(1)
        weights = (1 / per_view.clamp_min(1)).repeat_interleave(per_view)
        patch_loss = cross_entropy(student["patch_head"](student_patches[masks]), patch_target, cool)
        losses = {
            "dino": sum(terms) / pairs,
            "ibot": (patch_loss * weights).sum() / len(large),
            "koleo": (koleo(student_pooled[:batch]) + koleo(student_pooled[batch:])) / 2,
        }
        total = losses["dino"] + options["ibot_weight"] * losses["ibot"] + options["koleo_weight"] * losses["koleo"]
        with torch.no_grad():
            mean = reduce_sum(cls_target.sum(0)) / reduce_sum(cls_target.new_tensor(float(len(cls_target))))
            facts = {
                "teacher_entropy": -(cls_target * cls_target.clamp_min(1e-12).log()).sum(-1).mean(),
                "usage_entropy": -(mean * mean.clamp_min(1e-12).log()).sum(),
            }
        return {"loss": total, **losses, **facts, "features": pooled}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Move the teacher towards the student by the EMA momentum, which rises to 1 along a cosine."""
        move_average(self.teacher, self.student, ema_momentum(self.options["momentum"], progress))
