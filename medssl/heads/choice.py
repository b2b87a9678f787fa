"""Which kind of head: linear and patch compared on validation, each with settings that other groups chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from medssl.data.labelled import Labelled
from medssl.heads.config import LINEAR
from medssl.heads.head import Head
from medssl.heads.patch import PATCH
from medssl.metrics.bootstrap import bounded_mean, number_groups
from medssl.metrics.metric import figure_text, metric_json
from medssl.metrics.paired import paired_difference

AUTO = "auto"
MEASURE = "balanced_accuracy"
RESAMPLES = 1000


@dataclass(frozen=True)
class Candidate:
    """A fitted head, and the validation logits `[N, C]` it is compared by: see `held_out_logits`."""

    head: Head
    held_out: np.ndarray


def held_out_logits(chosen_by: Callable[[np.ndarray], np.ndarray], groups: np.ndarray, seed: int) -> np.ndarray:
    """Each image's logits `[N, C]` under the settings that the other half of the groups `[N]` chooses.

    `chosen_by(rows)` gives the logits `[N, C]` of the settings that the images in the bool mask `[N]` choose. A kind
    that is tried with more settings would otherwise look better on the images that chose among them. With a single
    group there is no other half.
    """
    numbers = number_groups(groups)
    count = int(numbers.max()) + 1
    if count < 2:
        return chosen_by(np.ones(len(numbers), bool))
    first = (np.random.default_rng(seed).permutation(count) % 2 == 0)[numbers]
    return np.where(first[:, None], chosen_by(~first), chosen_by(first))


def compare_kinds(linear: Candidate, patch: Candidate, validation: Labelled, seed: int) -> dict:
    """The kind that validation chooses, with the figures that decided, as plain JSON.

    Patch where its balanced accuracy is higher beyond the 95 % interval of the paired difference (bootstrap over
    groups), else linear: it is smaller, faster, and says no less.
    """
    right = {
        kind: (candidate.held_out.argmax(axis=1) == validation.labels).astype(np.float64)
        for kind, candidate in ((LINEAR, linear), (PATCH, patch))
    }
    groups = validation.groups
    count = len(np.unique(groups))
    figures: dict[str, dict] = {}
    for kind, scores in right.items():
        value, *ends = bounded_mean(scores, groups, validation.labels, RESAMPLES, seed)
        figures[kind] = metric_json(MEASURE, value, tuple(ends), len(scores), count)
    gap = paired_difference(right[PATCH], right[LINEAR], groups, validation.labels, RESAMPLES, seed)
    return {
        "asked": AUTO,
        "chosen": PATCH if gap["low"] is not None and gap["low"] > 0 else LINEAR,
        "split": "val",
        "measure": MEASURE,
        "images": len(validation),
        "groups": count,
        "seed": seed,
        "resamples": RESAMPLES,
        **figures,
        "patch_minus_linear": gap,
    }


def asked_for(kind: str) -> dict:
    """The record of a kind of head that was asked for."""
    return {"asked": kind, "chosen": kind}


def patch_not_tried(reason: str) -> dict:
    """The record of a linear head beside which no patch head was tried."""
    return {"asked": AUTO, "chosen": LINEAR, "patch_not_tried": reason}


def describe_choice(record: Mapping) -> str:
    """How the kind of head came about, in one sentence."""
    chosen = record["chosen"]
    if record["asked"] != AUTO:
        return f"Head: {chosen}, as asked for."
    if "patch_not_tried" in record:
        return f"Head: {chosen}; a patch head was not tried: {record['patch_not_tried']}."
    gap = record["patch_minus_linear"]
    why = "patch is better beyond the interval" if chosen == PATCH else "patch is not better beyond the interval"
    return (
        f"Head: {chosen}, because {why}: balanced accuracy on {record['images']} validation images of "
        f"{record['groups']} groups is {figure_text(record[PATCH])} for patch and {figure_text(record[LINEAR])} for "
        f"linear, a paired difference of {figure_text(gap, signed=True)} (settings of each chosen on the other half of "
        f"the groups, seed {record['seed']})."
    )
