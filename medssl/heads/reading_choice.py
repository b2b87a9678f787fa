"""Which reading: the candidates compared on validation by a quick probe, the plainest where several are alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.linalg import eigh
from sklearn.preprocessing import StandardScaler

from medssl.backbones.backbone import Backbone
from medssl.backbones.reading import Reading, candidate_readings, union
from medssl.data.labelled import Labelled
from medssl.heads.choice import MEASURE, RESAMPLES, held_out_logits
from medssl.heads.fit_linear import uneven
from medssl.metrics.bootstrap import bounded_mean
from medssl.metrics.metric import figure_text, metric_json
from medssl.metrics.paired import plainest

AUTO = "auto"
# Of the ridge probe, in units of the training images: a penalty of 1 halves a direction of variance 1.
PENALTIES = (1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)


def ridge_logits(train: Labelled, queries: Labelled, classes: int) -> list[np.ndarray]:
    """Logits `[N, C]` of queries for each penalty: least squares on standardized embeddings and one-hot labels.

    In closed form, all penalties from one decomposition, where a logistic regression takes minutes for some readings.
    Images of a class count by its inverse share where the classes are uneven, as in the head's own fit.
    """
    scaler = StandardScaler().fit(train.embeddings.astype(np.float64))
    values, new = (scaler.transform(part.embeddings.astype(np.float64)) for part in (train, queries))
    counts = np.bincount(train.labels, minlength=classes)
    balanced = uneven(train.labels, classes)
    weights = (len(train) / (classes * counts))[train.labels] if balanced else np.ones(len(train))
    targets = np.eye(classes)[train.labels]
    center, mean = np.average(values, axis=0, weights=weights), np.average(targets, axis=0, weights=weights)
    roots = np.sqrt(weights)[:, None]
    values, new, targets = roots * (values - center), new - center, roots * (targets - mean)
    if len(values) <= values.shape[1]:  # the smaller of the two equal systems
        spectrum, vectors = eigh(values @ values.T)
        left, right = new @ values.T @ vectors, vectors.T @ targets
    else:
        spectrum, vectors = eigh(values.T @ values)
        left, right = new @ vectors, vectors.T @ (values.T @ targets)
    damped = [1 / (np.maximum(spectrum, 0) + penalty * len(train)) for penalty in PENALTIES]
    return [mean + (left * factors) @ right for factors in damped]


def held_out_hits(train: Labelled, validation: Labelled, classes: int, seed: int) -> np.ndarray:
    """Whether each validation image `[N]` is right under the penalty that the other half of the groups chooses."""
    logits = ridge_logits(train, validation, classes)
    hits = np.stack([(found.argmax(axis=1) == validation.labels) for found in logits])

    def chosen_by(rows: np.ndarray) -> np.ndarray:
        recalls = [
            np.mean([hit[rows & (validation.labels == label)].mean() for label in np.unique(validation.labels[rows])])
            for hit in hits
        ]
        return logits[int(np.argmax(recalls))]

    return held_out_logits(chosen_by, validation.groups, seed).argmax(axis=1) == validation.labels


def readings_to_try(backbone: Backbone) -> dict[str, Reading]:
    """The readings that "auto" compares on a backbone, by name, the plainest first."""
    return candidate_readings(backbone.has_cls, backbone.depth)


def with_columns(images: Labelled, columns: np.ndarray) -> Labelled:
    """The same images with some of the numbers `[M]` of their embeddings."""
    return Labelled(np.ascontiguousarray(images.embeddings[:, columns]), images.labels, images.groups)


def choose_reading(
    train: Labelled, validation: Labelled, readings: Mapping[str, Reading], width: int, classes: int, seed: int = 0
) -> tuple[Reading, dict]:
    """The reading that validation chooses, and how, as plain JSON; embeddings are those of the readings' union.

    `readings` go from the plainest on, `width` is a part's. Each is judged by the balanced accuracy of a ridge probe
    fitted on train, whose penalty the other half of the validation groups chooses. Where the best cannot be told from a
    plainer one (95 % interval of the paired difference, bootstrap over groups), the plainer is taken.
    """
    wider = union(readings.values())
    groups, labels = validation.groups, validation.labels
    hits = []
    for reading in readings.values():
        columns = reading.columns(wider, width)
        sides = (with_columns(part, columns) for part in (train, validation))
        hits.append(held_out_hits(*sides, classes, seed).astype(np.float64))
    chosen, gaps = plainest(np.column_stack(hits), groups, labels, RESAMPLES, seed)
    names, count = list(readings), len(np.unique(groups))
    tried = {}
    for name, scores, gap in zip(names, hits, gaps, strict=True):
        value, *ends = bounded_mean(scores, groups, labels, RESAMPLES, seed)
        figure = metric_json(MEASURE, value, tuple(ends), len(scores), count)
        tried[name] = {"pooling": readings[name].pooling, MEASURE: figure, "best_minus_this": gap}
    return readings[names[chosen]], {
        "asked": AUTO,
        "chosen": names[chosen],
        "pooling": readings[names[chosen]].pooling,
        "split": "val",
        "measure": MEASURE,
        "probe": "ridge",
        "images": len(validation),
        "groups": count,
        "seed": seed,
        "resamples": RESAMPLES,
        "tried": tried,
    }


def asked_reading(text: str, reading: Reading) -> dict:
    """The record of a reading that was asked for."""
    return {"asked": text, "chosen": text, "pooling": reading.pooling}


def describe_reading_choice(record: Mapping) -> str:
    """How the reading came about, in one sentence."""
    chosen = record["chosen"]
    if record["asked"] != AUTO:
        return f"Reading: {record['pooling']}, as asked for."
    if len(record["tried"]) < 2:
        return f"Reading: {record['pooling']}, the only one that this backbone has."
    best = max(record["tried"], key=lambda name: record["tried"][name][MEASURE]["value"] or 0.0)
    figures = "; ".join(f"{name} {figure_text(found[MEASURE])}" for name, found in record["tried"].items())
    gap = figure_text(record["tried"][chosen]["best_minus_this"], signed=True)
    why = f"the plainest that the best, {best}, is not above beyond the interval ({gap})"
    why = "the best" if best == chosen else why
    text = f"{chosen} ({record['pooling']})" if chosen != record["pooling"] else chosen
    return (
        f"Reading: {text}, {why}. Tried on {record['images']} validation images of {record['groups']} groups, balanced "
        f"accuracy of a ridge probe (its penalty chosen on the other half of the groups, seed {record['seed']}): "
        f"{figures}."
    )
