"""Patches of annotated pictures, and the logistic regression that tells lesion from the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medssl.backbones.patch_tokens import Layer
from medssl.errors import DataError

LayerSet = tuple[Layer, ...]
FEW = 60  # pictures of which every patch is fitted on
CLEAR_PATCHES = 64  # of more pictures, so many patches without lesion are drawn from each
ITERATIONS = 100


@dataclass(frozen=True)
class AnnotatedTokens:
    """Annotated pictures at one input size: patch tokens of each layer `[M, P, D]`, of which `rows [N]` are theirs.

    `areas [N, h, w]` says how much of each patch is lesion, `lesions [N]` the number of the picture's class of lesion
    (-1: none), and `groups [N]` the patient. Raises DataError where they do not fit.
    """

    layers: Mapping[Layer, np.ndarray]
    rows: np.ndarray
    areas: np.ndarray
    lesions: np.ndarray
    groups: np.ndarray

    def __post_init__(self) -> None:
        lengths = {len(self.rows), len(self.areas), len(self.lesions), len(self.groups)}
        patches = {values.shape[1] for values in self.layers.values()}
        if len(lengths) > 1 or patches != {int(np.prod(self.areas.shape[1:]))}:
            raise DataError(
                f"{len(self.rows)} rows of tokens with {patches} patches do not fit areas {list(self.areas.shape)}, "
                f"{len(self.lesions)} lesions and {len(self.groups)} groups."
            )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_lesion(self) -> np.ndarray:
        """Bool `[N]`: the pictures with a lesion."""
        return self.areas.reshape(len(self), -1).any(axis=1)

    def chosen(self, pictures: np.ndarray) -> AnnotatedTokens:
        """Some of the pictures, by number."""
        return AnnotatedTokens(
            self.layers, self.rows[pictures], self.areas[pictures], self.lesions[pictures], self.groups[pictures]
        )

    def patches(self, layers: LayerSet, picture: int, places: np.ndarray | slice) -> np.ndarray:
        """Patches of one picture, float32 `[n, L * D]`: the layers side by side."""
        return np.concatenate(
            [self.layers[layer][self.rows[picture]][places].astype(np.float32) for layer in layers], axis=1
        )


@dataclass(frozen=True)
class Examples:
    """Patches to fit on: standardised `values [M, L * D]`, their lesion `targets [M, 1 + C]`, `weights [M]`.

    A target is the share of the patch's area. `mean` and `std` are what the values were standardised by.
    """

    values: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor


def draw_examples(pictures: AnnotatedTokens, layers: LayerSet, classes: int, seed: int) -> Examples:
    """The patches that a localizer is fitted on: all of a few pictures; of many, all lesions and some of the rest.

    What is drawn of the rest weighs as much as all of it.
    """
    generator = np.random.default_rng(seed)
    values, areas, weights, owner = [], [], [], []
    for picture in range(len(pictures)):
        area = pictures.areas[picture].ravel()
        clear = np.flatnonzero(area == 0)
        drawn = clear if len(pictures) <= FEW else generator.permutation(clear)[:CLEAR_PATCHES]
        places = np.concatenate([np.flatnonzero(area > 0), drawn])
        values.append(pictures.patches(layers, picture, places))
        areas.append(area[places])
        weight = len(clear) / max(1, len(drawn))
        weights.append(np.where(area[places] > 0, 1.0, weight))
        owner.append(np.full(len(places), pictures.lesions[picture]))
    features, share = torch.from_numpy(np.concatenate(values)), np.concatenate(weights)
    share = torch.from_numpy((share / share.sum()).astype(np.float32))
    area, lesion = np.concatenate(areas), np.concatenate(owner)
    targets = np.stack([area, *(np.where(lesion == number, area, 0) for number in range(classes))], axis=1)
    mean = share @ features
    features -= mean
    std = (share @ features.square()).sqrt().clamp(min=1e-6)
    features /= std
    return Examples(features, torch.from_numpy(targets.astype(np.float32)), share, mean, std)


def fit_logistic(examples: Examples, penalties: Sequence[float]) -> dict[float, tuple[torch.Tensor, torch.Tensor]]:
    """Weight `[1 + C, L * D]` and bias `[1 + C]` for each penalty: logistic regression on shares of area, by L-BFGS.

    Minimises the weighted cross-entropy plus penalty / 2 times the squared weights, strongest penalty first, each from
    the one before. The standardisation is folded in. Deterministic.
    """
    outputs = examples.targets.shape[1]
    weight = torch.zeros(outputs, examples.values.shape[1], requires_grad=True)
    rate = (examples.weights @ examples.targets).clamp(1e-6, 1 - 1e-6)
    bias = torch.logit(rate).requires_grad_()
    found = {}
    for penalty in sorted(penalties, reverse=True):
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def loss(penalty: float = penalty, optimizer: torch.optim.LBFGS = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            logits = examples.values @ weight.T + bias
            cross = torch.nn.functional.binary_cross_entropy_with_logits(logits, examples.targets, reduction="none")
            total = (examples.weights @ cross).sum() + penalty / 2 * weight.square().sum()
            total.backward()
            return total

        optimizer.step(loss)
        plain = (weight / examples.std).detach()
        found[penalty] = plain, bias.detach() - plain @ examples.mean
    return found


def raw_maps(pictures: AnnotatedTokens, layers: LayerSet, weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    """Log-odds float32 `[N, K, h, w]` of pictures under weights `[K, L * D]`, not smoothed."""
    shape = pictures.areas.shape[1:]
    maps = np.empty((len(pictures), len(weight), *shape), np.float32)
    for picture in range(len(pictures)):
        values = torch.from_numpy(pictures.patches(layers, picture, slice(None)))
        maps[picture] = (values @ weight.T + bias).T.reshape(-1, *shape).numpy()
    return maps
