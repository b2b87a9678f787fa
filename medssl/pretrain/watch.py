"""A kNN score on labelled images while pretraining runs: for watching only, nothing is chosen or trained by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from medssl.data.load import load_data, read_record
from medssl.data.split import split_data
from medssl.pretrain.batches import standardize
from medssl.pretrain.corpus import square
from medssl.pretrain.encoder import Encoder

NEIGHBORS = 10
BATCH = 64


class Watch:
    """The train and val splits of labelled data sets, in memory at one side length; the test split is never read."""

    def __init__(self, data: Mapping[str, str | Path], side: int, seed: int) -> None:
        self.sets = {}
        for name, source in data.items():
            rows = split_data(load_data(source), seed=seed)
            split, labels = np.array(rows["split"][:]), np.array(rows["label"][:])
            parts = {}
            for part in ("train", "val"):
                chosen = np.flatnonzero(split == part)
                pixels = np.stack([square(read_record(rows[int(index)]), side) for index in chosen])
                parts[part] = (pixels, labels[chosen])
            self.sets[name] = parts

    @torch.inference_mode()
    def scores(self, encoder: Encoder) -> dict[str, float]:
        """kNN accuracy (cosine, 10 neighbours of train) on val by data set, as `knn_NAME`."""
        device = next(encoder.parameters()).device
        training = encoder.training
        encoder.eval()

        def features(pixels: np.ndarray) -> torch.Tensor:
            batches = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
            parts = [encoder(standardize(torch.from_numpy(b).to(device).float() / 255))[0].float() for b in batches]
            return normalize(torch.cat(parts), dim=-1).cpu()

        found = {}
        for name, parts in self.sets.items():
            (train, train_labels), (val, val_labels) = parts["train"], parts["val"]
            similarity, nearest = (features(val) @ features(train).T).topk(min(NEIGHBORS, len(train)))
            votes = torch.zeros(len(val), int(train_labels.max()) + 1)
            votes.scatter_add_(1, torch.from_numpy(train_labels)[nearest], similarity.clamp_min(0))
            found[f"knn_{name}"] = float((votes.argmax(1).numpy() == val_labels).mean())
        encoder.train(training)
        return found
