"""A random twin: a backbone's architecture without its training, the control of every study."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import AutoModel

from medssl.backbones.backbone import Backbone, shared_backbone
from medssl.study.kinds import RANDOM


def random_twin(source: str | Path, seed: int = 0) -> Backbone:
    """A backbone's architecture and preprocessing with freshly initialised weights: what training is worth."""
    trained = shared_backbone(str(source))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(copy.deepcopy(trained.model.config))
    return Backbone(
        model,
        id=f"{RANDOM}{trained.id}",
        revision=f"{RANDOM}seed={seed}:{trained.revision}",
        preprocess=trained.preprocess,
        # bf16 blurs untrained embeddings more than trained ones, because images differ less in them.
        precision="fp32",
    )


def open_backbone(source: str | Path | Backbone, seed: int) -> Backbone:
    """A backbone from a registry name, a Hub id or a folder; "random:" before it asks for its random twin."""
    if isinstance(source, Backbone):
        return source
    text = str(source)
    return random_twin(text.removeprefix(RANDOM), seed) if text.startswith(RANDOM) else shared_backbone(text)


def public_id(name: str) -> str:
    """A backbone's id without the folders above it, which are nobody else's business."""
    place = Path(name.removeprefix(RANDOM))
    kept = place.name if place.is_absolute() else str(place)
    return RANDOM + kept if name.startswith(RANDOM) else kept
