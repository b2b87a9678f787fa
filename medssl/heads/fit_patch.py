"""Fit a head that looks at patches on the image labels alone: which layer, share and penalty, validation decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from medssl.backbones.backbone import Backbone, blocks
from medssl.backbones.embedder import Embedder
from medssl.backbones.patch_tokens import Layer, layer_name
from medssl.data.labelled import Labelled
from medssl.data.tasks import Task
from medssl.errors import DataError
from medssl.heads.calibration import calibrate, fit_temperature, smoothed_losses
from medssl.heads.choice import Candidate, held_out_logits
from medssl.heads.fit_linear import (
    check_classes,
    fit_facts,
    uneven,
    versions,
)
from medssl.heads.head import Head
from medssl.heads.patch import PatchHead, pool_evidence

SHARES = (0.02, 0.05, 0.1, 0.25, 1.0)
PENALTIES = (1e-3, 1e-2, 1e-1)
EPOCHS = 20
MIN_STEPS = 400  # few images take more epochs
BATCH_IMAGES = 32
LEARNING_RATE = 0.01
START_STD = 0.01  # of the first weights: with zeros no patch would stand out


@dataclass(frozen=True)
class Tokens:
    """One layer's patch tokens `[M, P, D]` (memory mapped) and the rows of it `[N]` that belong to a split's images."""

    values: np.ndarray
    rows: np.ndarray

    def batch(self, chosen: np.ndarray | slice) -> torch.Tensor:
        """Some images' tokens, float32 `[B, P, D]`."""
        return torch.from_numpy(self.values[self.rows[chosen]].astype(np.float32))

    def batches(self) -> list[slice]:
        """The split in order, some images at a time."""
        return [slice(start, start + BATCH_IMAGES) for start in range(0, len(self.rows), BATCH_IMAGES)]


def epochs(images: int) -> int:
    """How often a fit goes through so many training images."""
    return max(EPOCHS, math.ceil(MIN_STEPS / math.ceil(images / BATCH_IMAGES)))


def token_scale(tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation `[D]` over all patches of a split."""
    count, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for chosen in tokens.batches():
        values = tokens.batch(chosen).flatten(0, 1).double()
        count, total, squares = count + len(values), total + values.sum(0), squares + values.square().sum(0)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp(min=1e-12).sqrt().float()


def pooled_logits(tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Class evidence `[B, S, L, C]` of tokens `[B, P, D]` under weights `[S, L, C, D]`: S shares times L penalties."""
    shares, penalties, classes, width = weight.shape
    logits = tokens.flatten(0, 1) @ weight.reshape(-1, width).T + bias.reshape(-1)
    logits = logits.reshape(*tokens.shape[:2], shares, penalties * classes)
    pooled = [pool_evidence(logits[:, :, number], share) for number, share in enumerate(SHARES)]
    return torch.stack(pooled, dim=1).reshape(len(tokens), shares, penalties, classes)


def fit_patch_linear(
    tokens: Tokens, labels: np.ndarray, classes: int, balanced: bool, seed: int = 0, bar: tqdm | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights `[S, L, C, D]` and biases `[S, L, C]` of every share and penalty, fitted side by side by seeded Adam.

    Each minimises the (class-weighted) cross-entropy of its pooled logits plus penalty / 2 times the squared weights,
    over standardised tokens; the standardisation is then folded into the weights. Each is less its mean over classes.
    """
    mean, std = token_scale(tokens)
    generator = torch.Generator().manual_seed(seed)
    start = START_STD * torch.randn(1, 1, classes, len(mean), generator=generator)
    weight = start.repeat(len(SHARES), len(PENALTIES), 1, 1).requires_grad_()
    bias = torch.zeros(weight.shape[:3], requires_grad=True)
    counts = torch.bincount(torch.from_numpy(labels), minlength=classes)
    class_weight = len(labels) / (classes * counts) if balanced else torch.ones(classes)
    penalties, targets = torch.tensor(PENALTIES), torch.from_numpy(labels)
    optimizer = torch.optim.Adam([weight, bias], lr=LEARNING_RATE)
    rounds = epochs(len(labels))
    steps = rounds * math.ceil(len(labels) / BATCH_IMAGES)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    for _ in range(rounds):
        for chosen in torch.randperm(len(labels), generator=generator).split(BATCH_IMAGES):
            values = (tokens.batch(chosen.numpy()) - mean) / std
            w, b = weight - weight.mean(dim=2, keepdim=True), bias - bias.mean(dim=2, keepdim=True)
            wanted = targets[chosen]
            likelihood = pooled_logits(values, w, b).log_softmax(dim=-1)
            of_true = likelihood[torch.arange(len(chosen)), :, :, wanted]
            loss = -(of_true * class_weight[wanted, None, None]).mean(dim=0) + penalties / 2 * w.square().sum((2, 3))
            optimizer.zero_grad()
            # The sum of losses that share no weights: each is fitted as if alone.
            loss.sum().backward()
            optimizer.step()
            schedule.step()
        if bar is not None:
            bar.update()
    with torch.no_grad():
        w, b = weight - weight.mean(dim=2, keepdim=True), bias - bias.mean(dim=2, keepdim=True)
        w = w / std
        return w, b - w @ mean


@torch.no_grad()
def split_logits(tokens: Tokens, weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    """Pooled logits `[N, S, L, C]` of a split."""
    found = [pooled_logits(tokens.batch(chosen), weight, bias) for chosen in tokens.batches()]
    return torch.cat(found).double().numpy()


def default_layers(backbone: Backbone) -> tuple[Layer, ...]:
    """The layers worth a try: the final tokens, and the blocks at half and three quarters of the depth.

    Early tokens say more of their own place, late ones more of the whole image.
    """
    depth = len(blocks(backbone.model)) if backbone.has_cls else 0
    return (None, *sorted({depth // 2, 3 * depth // 4} - {0, depth}, reverse=True))


@dataclass(frozen=True)
class PatchFit:
    """One fit: its settings, its weights `[C, D]` and bias `[C]`, and its validation logits `[N, C]` and losses `[N]`.

    The losses are those after temperature scaling.
    """

    layer: Layer
    share: float
    penalty: float
    weight: torch.Tensor
    bias: torch.Tensor
    logits: np.ndarray
    losses: np.ndarray

    @property
    def loss(self) -> float:
        """The mean validation loss."""
        return float(self.losses.mean())


def layer_fits(
    layer: Layer, weight: torch.Tensor, bias: torch.Tensor, logits: np.ndarray, labels: np.ndarray
) -> list[PatchFit]:
    """The fits of one layer: weights `[S, L, C, D]`, biases `[S, L, C]`, validation logits `[N, S, L, C]`."""
    found = []
    for number, share in enumerate(SHARES):
        for other, penalty in enumerate(PENALTIES):
            own = logits[:, number, other]
            losses = smoothed_losses(own / fit_temperature(own, labels), labels)
            found.append(PatchFit(layer, share, penalty, weight[number, other], bias[number, other], own, losses))
    return found


def choose(fits: Sequence[PatchFit], rows: np.ndarray | slice = slice(None)) -> PatchFit:
    """Of the fits within one standard error of the lowest validation loss, the most local one.

    That is the smallest share, then the lowest loss. The one-standard-error rule (Breiman et al. 1984, section 3.4.3):
    what validation cannot tell apart is decided by what the head is for. `rows`: the images that choose, a bool mask
    `[N]` or a slice.
    """

    def loss(fit: PatchFit) -> float:
        return float(fit.losses[rows].mean())

    best = min(fits, key=loss)
    of_best = best.losses[rows]
    error = of_best.std(ddof=1) / math.sqrt(len(of_best)) if len(of_best) > 1 else 0.0
    return min((fit for fit in fits if loss(fit) <= loss(best) + error), key=lambda fit: (fit.share, loss(fit)))


@dataclass(frozen=True)
class LabelledTokens:
    """One split's images with their patch tokens: `layers` holds each layer's tokens `[M, P, D]`, from
    `patch_tokens`, and `rows [N]` which of them are this split's images. Raises DataError where they do not fit.
    """

    images: Labelled
    layers: Mapping[Layer, np.ndarray]
    rows: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.images):
            raise DataError(
                f"A split of {len(self.images)} images and {len(self.rows)} rows of patch tokens do not fit."
            )

    def of(self, layer: Layer) -> Tokens:
        """One layer's tokens of these images."""
        return Tokens(self.layers[layer], np.asarray(self.rows, dtype=np.int64))


def check_tokens(layers: Mapping[Layer, np.ndarray], width: int) -> None:
    """Raises DataError unless there are tokens `[M, P, D]` of this width for at least one layer."""
    if not layers:
        raise DataError("A patch head needs the patch tokens of at least one layer; none were given.")
    for values in layers.values():
        if values.ndim != 3 or values.shape[2] != width:
            raise DataError(f"Patch tokens are {list(values.shape)}; [images, patches, {width}] fits.")


def fit_layers(
    train: LabelledTokens, validation: LabelledTokens, classes: int, balanced: bool, seed: int, progress: bool
) -> list[PatchFit]:
    """One fit for each layer, share and penalty."""
    fits: list[PatchFit] = []
    total = epochs(len(train.images)) * len(train.layers)
    with tqdm(total=total, desc="fit", unit="epoch", disable=not progress) as bar:
        for layer in train.layers:
            weight, bias = fit_patch_linear(train.of(layer), train.images.labels, classes, balanced, seed, bar)
            logits = split_logits(validation.of(layer), weight, bias)
            fits += layer_fits(layer, weight, bias, logits, validation.images.labels)
    return fits


def lowest_losses(fits: Sequence[PatchFit]) -> dict[str, float]:
    """The lowest validation loss of each layer and share, by name."""
    found: dict[str, float] = {}
    for fit in fits:
        name = f"{layer_name(fit.layer)}, {fit.share:g}"
        found[name] = min(found.get(name, math.inf), fit.loss)
    return found


def patch_candidate(
    train: LabelledTokens,
    validation: LabelledTokens,
    task: Task,
    embedder: Embedder,
    facts: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Candidate:
    """The head of `fit_patch_head`, and what it is compared to a head of another kind by. Raises DataError."""
    check_classes(task, train.images, validation.images)
    check_tokens(train.layers, embedder.backbone.dimension)
    balanced = uneven(train.images.labels, len(task.labels))
    fits = fit_layers(train, validation, len(task.labels), balanced, seed, progress)
    chosen = choose(fits)
    temperature, thresholds = calibrate(chosen.logits, train.images, validation.images, task.labels)
    head = PatchHead.from_patch_linear(
        chosen.weight,
        chosen.bias,
        list(task.labels),
        embedder.backbone,
        embedder.pooling,
        share=chosen.share,
        layer=chosen.layer,
        preprocess=embedder.preprocess,
        temperature=temperature,
        thresholds=thresholds,
        task=task.to_dict(),
        fitted_on={
            **(facts or {}),
            "method": "multinomial logistic regression on the mean evidence of the top share of standardised patches",
            "penalty": chosen.penalty,
            "chosen_by": "smallest share within one standard error of the best validation loss",
            "validation_losses": lowest_losses(fits),
            **fit_facts(train.images, validation.images, balanced),
        },
        versions=versions(),
    )
    return Candidate(head, held_out_logits(lambda rows: choose(fits, rows).logits, validation.images.groups, seed))


def fit_patch_head(
    train: LabelledTokens,
    validation: LabelledTokens,
    task: Task,
    embedder: Embedder,
    facts: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Head:
    """Fit a patch head; layer, share and penalty by `choose`, then temperature and thresholds as ever.

    `facts` (where the data is from) are written into the head's `fitted_on`. Deterministic for a seed. Raises DataError
    when a class is missing from a split or tokens do not fit.
    """
    return patch_candidate(train, validation, task, embedder, facts, seed, progress).head
