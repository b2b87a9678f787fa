"""Which images a step takes, and the views that are made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from medssl.images.preprocess import IMAGENET_MEAN, IMAGENET_STD
from medssl.pretrain import distributed
from medssl.pretrain.corpus import Corpus
from medssl.pretrain.dino import random_masks
from medssl.pretrain.objective import Objective, ViewBatch
from medssl.pretrain.recipe import Recipe
from medssl.pretrain.views import Crops, crop_views


def standardize(
    pixels: torch.Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> torch.Tensor:
    """Pixels `[B, 3, H, W]` in 0 to 1 as a model takes them."""
    center = torch.tensor(mean, device=pixels.device).view(1, 3, 1, 1)
    return (pixels - center) / torch.tensor(std, device=pixels.device).view(1, 3, 1, 1)


def generator_of(*numbers: int) -> torch.Generator:
    """A generator that depends on nothing but these numbers, so that a resumed run draws what it would have drawn."""
    digest = hashlib.sha256(json.dumps(numbers).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


class Batches:
    """Which images a step takes: a new permutation an epoch, the last incomplete batch of each left out.

    `kinds [N]` int64 splits the images into kinds that no batch mixes; without it there is one.
    """

    def __init__(self, images: int, batch_size: int, seed: int, kinds: np.ndarray | None = None) -> None:
        self.batch_size, self.seed = batch_size, seed
        found = np.zeros(images, np.int64) if kinds is None else kinds
        self.members = [np.flatnonzero(found == kind) for kind in np.unique(found)]
        self.per_epoch = sum(len(members) // batch_size for members in self.members)

    @lru_cache(maxsize=2)  # noqa: B019 - one object a run
    def epoch(self, number: int) -> np.ndarray:
        """The batches of an epoch `[per_epoch, batch_size]`."""
        generator, found = generator_of(self.seed, 0, number), []
        for members in self.members:
            order = members[torch.randperm(len(members), generator=generator).numpy()]
            whole = len(order) // self.batch_size
            found.append(order[: whole * self.batch_size].reshape(whole, self.batch_size))
        batches = np.concatenate(found)
        return batches if len(found) == 1 else batches[torch.randperm(len(batches), generator=generator).numpy()]

    def indices(self, step: int, rank: int, world: int) -> np.ndarray:
        """This process's share of the batch of a step, sorted for reading."""
        epoch, place = divmod(step, self.per_epoch)
        return np.sort(self.epoch(epoch)[place][rank::world])


def make_views(corpus: Corpus, indices: np.ndarray, objective: Objective, recipe: Recipe, step: int) -> ViewBatch:
    """The views of a batch, on the objective's device."""
    plan, patch = objective.plan, objective.kept.patch
    device = next(objective.parameters()).device
    images, policies = corpus.batch(indices)
    images = images.to(device)
    generator = generator_of(recipe.seed, 1, step, distributed.rank())
    large = crop_views(images, policies, Crops(recipe.size, plan.large_scale, 2), generator)
    small = large[:0]
    if plan.small_count:
        small = crop_views(images, policies, Crops(recipe.small_size, plan.small_scale, plan.small_count), generator)
    masks = torch.zeros(len(large), 0, dtype=torch.bool)
    if plan.masked:
        masks = random_masks(len(large), recipe.size // patch, generator)
    return ViewBatch(standardize(large), standardize(small), masks.to(device))
