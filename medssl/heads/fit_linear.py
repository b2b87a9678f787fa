"""Fit a head on embeddings: logistic regression, then temperature and thresholds."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medssl.backbones.embedder import Embedder
from medssl.data.labelled import Labelled
from medssl.data.tasks import Task
from medssl.errors import DataError
from medssl.heads.calibration import calibrate, fit_temperature, smoothed_losses
from medssl.heads.choice import Candidate, held_out_logits
from medssl.heads.head import ClassificationHead, Head

C_GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
# Classes count as uneven when the largest has this many times the images of the smallest.
UNEVEN = 1.5
RECORDED = ("torch", "transformers", "datasets", "huggingface-hub", "scikit-learn", "qdrant-client", "numpy", "pillow")


def fit_linear(train: Labelled, C: float, classes: int, balanced: bool) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression on standardised embeddings, folded into weight `[C, D]` and bias `[C]`."""
    scaler = StandardScaler().fit(train.embeddings)
    model = LogisticRegression(C=C, max_iter=2000, class_weight="balanced" if balanced else None)
    model.fit(scaler.transform(train.embeddings), train.labels)
    weight, bias = model.coef_, model.intercept_
    if classes == 2:  # scikit-learn gives one row for two classes; softmax over (-z/2, z/2) is the same model
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    return weight, bias - weight @ scaler.mean_


def uneven(labels: np.ndarray, classes: int) -> bool:
    """Whether the classes are so uneven that their weights are balanced."""
    counts = np.bincount(labels, minlength=classes)
    return bool(counts.max() > UNEVEN * counts.min())


def check_classes(task: Task, train: Labelled, validation: Labelled) -> None:
    """Raises DataError when a class is missing from train or validation."""
    for name, part in (("train", train), ("val", validation)):
        missing = [label for index, label in enumerate(task.labels) if index not in part.labels]
        if missing:
            raise DataError(f"The {name} split has no image of {', '.join(missing)}; add some or split anew.")


def fit_facts(train: Labelled, validation: Labelled, balanced: bool) -> dict:
    """What every fitted head tells of its images."""
    return {
        "class_weight": "balanced" if balanced else "none",
        "train_images": len(train.labels),
        "train_groups": len(set(train.groups)),
        "val_images": len(validation.labels),
        "val_groups": len(set(validation.groups)),
    }


def versions() -> dict[str, str]:
    """The versions that a fit depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in RECORDED}}


@dataclass(frozen=True)
class LinearFit:
    """One fit: its C, weight `[C, D]` and bias `[C]`, its validation logits `[N, C]` and their losses `[N]`.

    The losses are those after temperature scaling.
    """

    C: float
    weight: np.ndarray
    bias: np.ndarray
    logits: np.ndarray
    losses: np.ndarray


def linear_fits(train: Labelled, validation: Labelled, classes: int, balanced: bool) -> list[LinearFit]:
    """One fit for each C."""
    found = []
    for C in C_GRID:
        weight, bias = fit_linear(train, C, classes, balanced)
        logits = validation.embeddings @ weight.T + bias
        losses = smoothed_losses(logits / fit_temperature(logits, validation.labels), validation.labels)
        found.append(LinearFit(C, weight, bias, logits, losses))
    return found


def likeliest(fits: Sequence[LinearFit], rows: np.ndarray | slice = slice(None)) -> LinearFit:
    """The fit of best validation likelihood on some of the images: a bool mask `[N]` or a slice."""
    return min(fits, key=lambda fit: float(fit.losses[rows].mean()))


def choose_linear(train: Labelled, validation: Labelled, classes: int) -> tuple[np.ndarray, np.ndarray, float, bool]:
    """Weight `[C, D]`, bias `[C]`, the C of best validation likelihood after temperature scaling, and if balanced."""
    balanced = uneven(train.labels, classes)
    chosen = likeliest(linear_fits(train, validation, classes, balanced))
    return chosen.weight, chosen.bias, chosen.C, balanced


def linear_candidate(
    train: Labelled,
    validation: Labelled,
    task: Task,
    embedder: Embedder,
    facts: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Candidate:
    """The head of `fit_head`, and what it is compared to a head of another kind by; the seed draws the halves.

    Raises DataError when a class is missing from train or validation.
    """
    check_classes(task, train, validation)
    balanced = uneven(train.labels, len(task.labels))
    fits = linear_fits(train, validation, len(task.labels), balanced)
    chosen = likeliest(fits)
    temperature, thresholds = calibrate(chosen.logits, train, validation, task.labels)
    head = ClassificationHead.from_linear(
        chosen.weight.astype(np.float32),
        chosen.bias.astype(np.float32),
        task.labels,
        embedder.backbone,
        embedder.pooling,
        preprocess=embedder.preprocess,
        temperature=temperature,
        thresholds=thresholds,
        task=task.to_dict(),
        fitted_on={
            **(facts or {}),
            "method": "multinomial logistic regression on standardised embeddings",
            "C": chosen.C,
            "C_chosen_by": "validation likelihood after temperature scaling",
            **fit_facts(train, validation, balanced),
        },
        versions=versions(),
    )
    return Candidate(head, held_out_logits(lambda rows: likeliest(fits, rows).logits, validation.groups, seed))


def fit_head(
    train: Labelled, validation: Labelled, task: Task, embedder: Embedder, facts: Mapping[str, Any] | None = None
) -> Head:
    """Fit a linear head: C by validation likelihood, then temperature and thresholds on validation.

    `facts` (where the data is from, the seed) are written into the head's `fitted_on`. Deterministic: nothing random
    takes part. Raises DataError when a class is missing from train or validation.
    """
    return linear_candidate(train, validation, task, embedder, facts).head
