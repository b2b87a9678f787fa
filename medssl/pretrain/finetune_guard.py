"""Whether tuning helped: tuned against frozen on the same validation images, and what else it changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from medssl.data.labelled import Labelled
from medssl.heads.calibration import familiarity_threshold, fit_temperature, nearest_similarity
from medssl.heads.choice import MEASURE, RESAMPLES, held_out_logits
from medssl.heads.fit_linear import likeliest, linear_fits, uneven
from medssl.metrics.bootstrap import bounded_mean
from medssl.metrics.metric import figure_text, flagged_share, metric_json
from medssl.metrics.paired import paired_difference
from medssl.metrics.reliability import expected_calibration_error
from medssl.metrics.retrieval import RETRIEVAL, retrieval_scores, unit

FROZEN, TUNED, GAP = "frozen", "tuned", "tuned_minus_frozen"


@dataclass(frozen=True)
class Embedded:
    """The same images under one encoder: `train`, `validation`, and images of other tasks by name."""

    train: Labelled
    validation: Labelled
    others: Mapping[str, Labelled]


@dataclass(frozen=True)
class HeldOut:
    """Validation logits `[V, C]` of linear heads whose C the other half of the groups chose: as they come, and divided
    by the temperature that the other half fits.
    """

    raw: np.ndarray
    calibrated: np.ndarray


def held_out(part: Embedded, classes: int, seed: int) -> HeldOut:
    """What a linear head on an encoder's embeddings says of validation images that did not choose its settings."""
    known = part.validation
    fits = linear_fits(part.train, known, classes, uneven(part.train.labels, classes))

    def calibrated(rows: np.ndarray) -> np.ndarray:
        logits = likeliest(fits, rows).logits
        return logits / fit_temperature(logits[rows], known.labels[rows])

    raw = held_out_logits(lambda rows: likeliest(fits, rows).logits, known.groups, seed)
    return HeldOut(raw, held_out_logits(calibrated, known.groups, seed))


def right_answers(found: HeldOut, labels: np.ndarray) -> np.ndarray:
    """1 where the likeliest class is the label, else 0: float `[V]`."""
    return (found.raw.argmax(axis=1) == labels).astype(np.float64)


def likelihoods(found: HeldOut, labels: np.ndarray) -> np.ndarray:
    """The logarithm of the calibrated probability of the label `[V]`."""
    return log_softmax(found.calibrated, axis=1)[np.arange(len(labels)), labels]


def calibration_error(logits: np.ndarray, validation: Labelled, seed: int) -> dict:
    """The expected calibration error of logits `[V, C]`, with its interval."""
    probabilities = softmax(logits, axis=1)
    right = (probabilities.argmax(axis=1) == validation.labels).astype(np.float64)
    return expected_calibration_error(probabilities.max(axis=1), right, validation.groups, RESAMPLES, seed)


def unfamiliar(part: Embedded, seed: int) -> dict[str, dict]:
    """The share of each other task's images below the familiarity threshold that validation gives, with interval."""
    threshold = familiarity_threshold(part.validation, part.train)
    if threshold is None:
        return {}
    return {
        name: flagged_share(nearest_similarity(other, part.train) < threshold, other.groups, RESAMPLES, seed)
        for name, other in part.others.items()
    }


def own_group_nearest(train: Labelled) -> np.ndarray:
    """Whether each training image's nearest other one is of its own group, as 0 or 1 `[M]`.

    Of images whose group has others: what a split by image would leave on the other side. An encoder that learns
    patients by heart brings them closer.
    """
    groups, counts = np.unique(train.groups, return_counts=True)
    rows = np.flatnonzero(np.isin(train.groups, groups[counts > 1]))
    vectors = unit(train.embeddings)
    similarity = vectors[rows] @ vectors.T
    similarity[np.arange(len(rows)), rows] = -np.inf
    if not len(rows):
        return np.zeros(0)
    return (train.groups[similarity.argmax(axis=1)] == train.groups[rows]).astype(np.float64)


def own_group_figures(parts: Mapping[str, Embedded], seed: int) -> dict:
    """The share of `own_group_nearest` under each encoder, and the paired difference; {} where every group is one."""
    train = parts[FROZEN].train
    names, counts = np.unique(train.groups, return_counts=True)
    groups = train.groups[np.isin(train.groups, names[counts > 1])]
    if not len(groups):
        return {}
    scores = {name: own_group_nearest(part.train) for name, part in parts.items()}
    shares = {name: flagged_share(values, groups, RESAMPLES, seed) for name, values in scores.items()}
    return {**shares, GAP: paired_difference(scores[TUNED], scores[FROZEN], groups, None, RESAMPLES, seed)}


def retrieval_gaps(parts: Mapping[str, Embedded], seed: int) -> dict[str, dict]:
    """P@1, P@5 and mAP@10 of validation against train, tuned minus frozen, by the metric's name."""
    known = parts[FROZEN].validation
    scores = {
        name: retrieval_scores(
            *(part.validation.embeddings, part.validation.labels, part.validation.groups),
            *(part.train.embeddings, part.train.labels, part.train.groups),
        )
        for name, part in parts.items()
    }
    return {
        metric: paired_difference(
            scores[TUNED][:, column], scores[FROZEN][:, column], known.groups, None, RESAMPLES, seed
        )
        for column, metric in enumerate(RETRIEVAL)
    }


def compare_encoders(frozen: Embedded, tuned: Embedded, classes: int, seed: int) -> dict:
    """The verdict on tuning, with the figures behind it, as plain JSON.

    `better` where the balanced accuracy of linear heads on validation is higher beyond the 95 % interval of the paired
    difference (bootstrap over groups). C and temperature of each image's head were chosen by the other half of the
    groups. The epoch was chosen by the loss on the same images, which flatters the tuned encoder a little.
    """
    known = frozen.validation
    groups, labels = known.groups, known.labels
    count = len(np.unique(groups))
    parts = {FROZEN: frozen, TUNED: tuned}
    heads = {name: held_out(part, classes, seed) for name, part in parts.items()}
    right = {name: right_answers(head, labels) for name, head in heads.items()}
    figures: dict[str, dict] = {}
    for name, scores in right.items():
        value, *ends = bounded_mean(scores, groups, labels, RESAMPLES, seed)
        figures[name] = metric_json(MEASURE, value, tuple(ends), len(scores), count)
    gap = paired_difference(right[TUNED], right[FROZEN], groups, labels, RESAMPLES, seed)
    likely = [likelihoods(heads[name], labels) for name in (TUNED, FROZEN)]
    return {
        "better": bool(gap["low"] is not None and gap["low"] > 0),
        "split": "val",
        "measure": MEASURE,
        "images": len(known),
        "groups": count,
        "seed": seed,
        "resamples": RESAMPLES,
        **figures,
        GAP: gap,
        "log_likelihood_gap": paired_difference(*likely, groups, None, RESAMPLES, seed),
        "calibration_error": {
            name: {
                "before_temperature": calibration_error(head.raw, known, seed),
                "after_temperature": calibration_error(head.calibrated, known, seed),
            }
            for name, head in heads.items()
        },
        "retrieval_gaps": retrieval_gaps(parts, seed),
        "unfamiliar": {name: unfamiliar(part, seed) for name, part in parts.items()},
        "own_group_nearest": own_group_figures(parts, seed),
    }


def describe_verdict(record: Mapping) -> str:
    """The verdict in one sentence."""
    gap = record[GAP]
    if record["better"]:
        said = "Tuning helped"
    elif gap["high"] is not None and gap["high"] < 0:
        said = "Tuning made it worse"
    else:
        said = "Tuning is not better than the frozen encoder beyond chance"
    return (
        f"{said}: balanced accuracy on {record['images']} validation images of {record['groups']} groups is "
        f"{figure_text(record[TUNED])} tuned and {figure_text(record[FROZEN])} frozen, a paired difference of "
        f"{figure_text(gap, signed=True)} (linear heads, settings of each chosen on the other half of the groups, seed "
        f"{record['seed']}; the epoch was chosen by the loss on these images)."
    )


def describe_finetune(record: Mapping) -> str:
    """What tuning gave and which encoder the bundle is on, in words."""
    asked = ", as asked for whatever validation says" if record["anyway"] else ""
    return f"Fine-tuning ({record['mode']}). {describe_verdict(record['verdict'])} This bundle is on the " + (
        f"tuned encoder{asked}." if record["used"] == TUNED else "frozen encoder."
    )


def effect_lines(record: Mapping) -> list[str]:
    """What else tuning changed, in words, a line each."""
    lines = []
    for name, error in record["calibration_error"].items():
        before, after = (figure_text(error[f"{when}_temperature"]) for when in ("before", "after"))
        lines.append(f"Calibration error, {name}: {before} before temperature, {after} after")
    for metric, gap in record["retrieval_gaps"].items():
        lines.append(f"{metric} of similar cases, tuned less frozen: {figure_text(gap, signed=True)}")
    for other in record["unfamiliar"][TUNED]:
        frozen, tuned = (figure_text(record["unfamiliar"][name][other]) for name in (FROZEN, TUNED))
        lines.append(f"Images of {other} flagged as unfamiliar: {tuned} tuned, {frozen} frozen")
    own = record["own_group_nearest"]
    if own:
        lines.append(
            f"Training images whose nearest other one is of their own group: {figure_text(own[TUNED])} tuned, "
            f"{figure_text(own[FROZEN])} frozen (the closer to 1, the more an image-level split would flatter)"
        )
    return lines
