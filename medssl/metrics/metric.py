"""What each metric is, and a metric as JSON: value, 95 % interval over groups, images, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medssl.errors import DataError
from medssl.metrics.bootstrap import Groups, interval, resample, weighted_means
from medssl.text import markdown

# A few hundred test images are usual here: with 15 bins a perfectly calibrated model would already score 0.04 on them.
ECE_BINS = 10


@dataclass(frozen=True)
class MetricSpec:
    """What a metric is, which way is better (None where neither is), and whether it lies within 0 to 1."""

    description: str
    higher_is_better: bool | None
    bounded: bool = True


METRICS: dict[str, MetricSpec] = {
    "accuracy": MetricSpec("share of images whose most probable class is right", True),
    "balanced_accuracy": MetricSpec("mean of the classes' recalls", True),
    "macro_f1": MetricSpec("mean of the classes' F1", True),
    "auroc": MetricSpec("area under the ROC curve, one class against the rest, mean over classes", True),
    "ece": MetricSpec(
        f"expected calibration error: |confidence - accuracy| of the top class in {ECE_BINS} equal-width bins",
        False,
        False,
    ),
    "nll": MetricSpec("mean negative log-likelihood of the true class, nats", False, False),
    "conformal_coverage": MetricSpec("share of prediction sets that hold the true class; 0.90 is aimed at", None),
    "mean_set_size": MetricSpec("mean number of classes in a prediction set", False, False),
    "precision_at_1": MetricSpec("share of images whose most similar case has their label", True),
    "precision_at_5": MetricSpec("share of the 5 most similar cases with the image's label", True),
    "map_at_10": MetricSpec("mean average precision of the 10 most similar cases", True),
    "recall": MetricSpec("share of a class's images that are found", True),
    "share": MetricSpec("share of images flagged", None),
}


def plain(number: float) -> float | None:
    """A number for JSON, which knows no NaN."""
    return float(number) if np.isfinite(number) else None


def metric(name: str, value: float, resampled: np.ndarray, images: int, parts: Sequence[int], groups: int) -> dict:
    """A metric as JSON; `parts` are the group counts behind it, see `bootstrap.interval`."""
    spec = METRICS[name]
    # Sums of weights can leave 1 by the last bit, and a perfect score must be seen as one.
    value = float(np.round(value)) if np.isclose(value, np.round(value), rtol=0, atol=1e-12) else float(value)
    low, high = interval(value, resampled, groups, [count for count in parts if count] if spec.bounded else None)
    return metric_json(name, value, (low, high), images, groups)


def metric_json(name: str, value: float, ends: tuple[float, float], images: int, groups: int) -> dict:
    """A metric with the ends of its interval as it stands in metrics.json."""
    return {
        "value": plain(value),
        "low": plain(ends[0]),
        "high": plain(ends[1]),
        "n": images,
        "groups": groups,
        "higher_is_better": METRICS[name].higher_is_better,
    }


def check_groups(images: int, groups: Groups) -> int:
    """The number of images. Raises DataError where there are none or where groups do not fit them."""
    if images == 0:
        raise DataError("There are no images to measure on.")
    if len(groups) != images:
        raise DataError(f"{len(groups)} groups do not fit {images} images.")
    return images


def flagged_share(flags: np.ndarray, groups: Groups, n_bootstrap: int = 1000, seed: int = 0) -> dict:
    """The share of flagged images, bool `[N]`, as a metric. Raises DataError."""
    check_groups(len(flags), groups)
    values = np.asarray(flags, np.float64)[:, None]
    value, resampled = resample(groups, lambda weights: weighted_means(weights, values), n_bootstrap, seed)
    total = len(set(np.asarray(groups).astype(str)))
    return metric("share", value[0], resampled[:, 0], len(values), [total], total)


def figure_text(figure: Mapping, signed: bool = False) -> str:
    """A figure with its interval, as `0.952 [0.911, 0.984]`."""
    form = "+.3f" if signed else ".3f"
    value, low, high = (figure.get(name) for name in ("value", "low", "high"))
    if value is None:
        return "unknown"
    if low is None or high is None:
        return f"{value:{form}} (interval unknown)"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def format_metrics(metrics: Mapping, digits: int = 3) -> str:
    """Metrics as a Markdown table with intervals; per-class recalls as rows of their own."""

    def row(name: str, found: Mapping) -> str:
        cells = ["-" if found[key] is None else f"{found[key]:.{digits}f}" for key in ("value", "low", "high")]
        better = {True: "higher", False: "lower", None: ""}[found["higher_is_better"]]
        return f"| {markdown(name)} | {cells[0]} | {cells[1]} to {cells[2]} | {better} |"

    lines = ["| metric | value | 95 % interval | better |", "| --- | --- | --- | --- |"]
    lines += [row(name, found) for name, found in metrics.items() if isinstance(found, Mapping) and "value" in found]
    lines += [row(f"recall, {label}", found) for label, found in metrics.get("per_class_recall", {}).items()]
    return "\n".join(lines)
