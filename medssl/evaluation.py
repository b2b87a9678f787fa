"""Classification, calibration and retrieval metrics, each with a 95 % bootstrap interval over groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

ECE_BINS = 15
EPSILON = 1e-12


@dataclass(frozen=True)
class MetricSpec:
    """What a metric is and which way is better (None where neither is)."""

    description: str
    higher_is_better: bool | None


METRICS: dict[str, MetricSpec] = {
    "accuracy": MetricSpec("share of images whose most probable class is right", True),
    "balanced_accuracy": MetricSpec("mean of the classes' recalls", True),
    "macro_f1": MetricSpec("mean of the classes' F1", True),
    "auroc": MetricSpec("area under the ROC curve, one class against the rest, mean over classes", True),
    "ece": MetricSpec(f"expected calibration error of the top class, {ECE_BINS} equal-width bins", False),
    "nll": MetricSpec("mean negative log-likelihood of the true class, nats", False),
    "conformal_coverage": MetricSpec("share of prediction sets that hold the true class; 0.90 is aimed at", None),
    "mean_set_size": MetricSpec("mean number of classes in a prediction set", False),
    "precision_at_1": MetricSpec("share of images whose most similar case has their label", True),
    "precision_at_5": MetricSpec("share of the 5 most similar cases with the image's label", True),
    "map_at_10": MetricSpec("mean average precision of the 10 most similar cases", True),
    "recall": MetricSpec("share of a class's images that are found", True),
    "share": MetricSpec("share of images flagged", None),
}
# Metrics that are means of independent yes/no outcomes: at 0 or 1 the bootstrap cannot see their uncertainty.
PROPORTIONS = {"accuracy", "balanced_accuracy", "conformal_coverage", "precision_at_1", "recall", "share"}


def group_weights(groups: Sequence[str], n_bootstrap: int, seed: int) -> np.ndarray:
    """How often each image is drawn in each resample of whole groups: `[R, N]` float64, the first row all one."""
    _, inverse = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    count = int(inverse.max()) + 1
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(count, np.full(count, 1 / count), size=n_bootstrap)
    return np.vstack([np.ones(len(inverse)), draws[:, inverse]])


def with_interval(name: str, values: np.ndarray, groups: Sequence[str]) -> dict:
    """A metric as JSON: the value (first entry) and the 2.5th and 97.5th percentile of the resamples.

    A proportion of exactly 0 or 1 gets the exact binomial bound (Clopper & Pearson 1934) with groups as trials.
    """
    count = len(set(map(str, groups)))
    value = float(values[0])
    resampled = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(resampled, (2.5, 97.5)) if len(resampled) else (np.nan, np.nan)
    if name in PROPORTIONS and value in (0.0, 1.0):
        bound = float(beta.ppf(0.025, count, 1))
        low, high = (bound, 1.0) if value == 1.0 else (0.0, 1 - bound)

    def plain(number: float) -> float | None:
        return float(number) if np.isfinite(number) else None

    return {
        "value": plain(value),
        "low": plain(low),
        "high": plain(high),
        "n": len(groups),
        "groups": count,
        "higher_is_better": METRICS[name].higher_is_better,
    }


def weighted_mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means `[R]` of values `[N]` under weights `[R, N]`; NaN where nothing is drawn."""
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ values) / total


def weighted_auroc(weights: np.ndarray, scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under the ROC curve `[R]` of scores `[N]` under weights `[R, N]`, ties counted half; NaN without both classes."""
    order = np.argsort(scores, kind="stable")
    _, tie = np.unique(scores[order], return_inverse=True)
    starts = np.flatnonzero(np.r_[True, np.diff(tie) > 0])
    weights = weights[:, order]
    up = np.add.reduceat(weights * positive[order], starts, axis=1)
    down = np.add.reduceat(weights * ~positive[order], starts, axis=1)
    below = np.cumsum(down, axis=1) - down
    with np.errstate(invalid="ignore", divide="ignore"):
        return (up * (below + down / 2)).sum(1) / (up.sum(1) * down.sum(1))


def weighted_ece(weights: np.ndarray, confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Expected calibration error `[R]` (Guo et al. 2017, arXiv 1706.04599) of confidences `[N]` under weights `[R, N]`."""
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    member = np.eye(ECE_BINS)[bins]
    gap = weights @ (member * (correct - confidence)[:, None])
    return np.abs(gap).sum(axis=1) / weights.sum(axis=1)


def classification_metrics(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    label_names: Sequence[str],
    prediction_sets: np.ndarray | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict:
    """Metrics of probabilities `[N, C]` against labels `[N]`; prediction_sets is bool `[N, C]` or None.

    Adds `per_class_recall` (label -> metric) and `confusion_matrix` (rows true, columns predicted, order of labels).
    """
    probabilities = np.asarray(probabilities, np.float64)
    labels = np.asarray(labels)
    rows, classes = np.arange(len(labels)), len(label_names)
    weights = group_weights(groups, n_bootstrap, seed)
    predicted = probabilities.argmax(axis=1)
    correct = predicted == labels
    is_true, is_predicted = np.eye(classes)[labels], np.eye(classes)[predicted]
    support = weights @ is_true
    hits = weights @ (is_true * correct[:, None])
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / support
        f1 = 2 * hits / (support + weights @ is_predicted)
    auroc = np.stack([weighted_auroc(weights, probabilities[:, c], labels == c) for c in range(classes)], axis=1)
    values = {
        "accuracy": weighted_mean(weights, correct.astype(float)),
        "balanced_accuracy": mean_known(recall),
        "macro_f1": mean_known(f1),
        "auroc": mean_known(auroc),
        "ece": weighted_ece(weights, probabilities.max(axis=1), correct.astype(float)),
        "nll": weighted_mean(weights, -np.log(np.clip(probabilities[rows, labels], EPSILON, 1))),
    }
    if prediction_sets is not None:
        sets = np.asarray(prediction_sets, bool)
        values["conformal_coverage"] = weighted_mean(weights, sets[rows, labels].astype(float))
        values["mean_set_size"] = weighted_mean(weights, sets.sum(axis=1).astype(float))
    result = {name: with_interval(name, value, groups) for name, value in values.items()}
    names = np.asarray(groups).astype(str)
    result["per_class_recall"] = {
        label: with_interval("recall", recall[:, c], names[labels == c]) for c, label in enumerate(label_names)
    }
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (labels, predicted), 1)
    result["confusion_matrix"] = {"labels": list(label_names), "rows_true_columns_predicted": matrix.tolist()}
    return result


def mean_known(values: np.ndarray) -> np.ndarray:
    """Row means `[R]` of `[R, C]` over the entries that are known; NaN where none is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)


def retrieval_metrics(
    query_embeddings: np.ndarray,
    query_labels: np.ndarray,
    query_groups: Sequence[str],
    case_embeddings: np.ndarray,
    case_labels: np.ndarray,
    case_groups: Sequence[str],
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict:
    """P@1, P@5 and mAP@10 of the cases by cosine, cases of the query's own group left out.

    Average precision divides by min(10, cases of the label that may be found); queries without any count as NaN and
    are left out.
    """
    queries = query_embeddings / np.linalg.norm(query_embeddings, axis=1, keepdims=True)
    cases = case_embeddings / np.linalg.norm(case_embeddings, axis=1, keepdims=True)
    allowed = np.asarray(query_groups).astype(str)[:, None] != np.asarray(case_groups).astype(str)[None]
    similarity = np.where(allowed, queries @ cases.T, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :10]
    reachable = np.take_along_axis(allowed, order, axis=1)
    relevant = (np.asarray(case_labels)[order] == np.asarray(query_labels)[:, None]) & reachable
    same = (np.asarray(case_labels)[None] == np.asarray(query_labels)[:, None]) & allowed
    possible = np.minimum(10, same.sum(axis=1))
    ranks = np.arange(1, order.shape[1] + 1)
    gains = (relevant * np.cumsum(relevant, axis=1) / ranks).sum(axis=1)
    usable = possible > 0
    weights = group_weights(query_groups, n_bootstrap, seed) * usable
    per_query = {
        "precision_at_1": relevant[:, 0].astype(float),
        "precision_at_5": relevant[:, :5].sum(axis=1) / np.maximum(1, np.minimum(5, reachable.sum(axis=1))),
        "map_at_10": gains / np.maximum(possible, 1),
    }
    return {name: with_interval(name, weighted_mean(weights, v), query_groups) for name, v in per_query.items()}


def share(flags: np.ndarray, groups: Sequence[str], n_bootstrap: int = 1000, seed: int = 0) -> dict:
    """The share of flagged images `[N]`, as a metric."""
    weights = group_weights(groups, n_bootstrap, seed)
    return with_interval("share", weighted_mean(weights, np.asarray(flags, float)), groups)


def format_metrics(metrics: dict, digits: int = 3) -> str:
    """Metrics as a Markdown table with intervals; per-class recalls as rows of their own."""

    def row(name: str, metric: dict) -> str:
        cells = ["-" if metric[key] is None else f"{metric[key]:.{digits}f}" for key in ("value", "low", "high")]
        arrow = {True: "higher", False: "lower", None: ""}[metric["higher_is_better"]]
        return f"| {name} | {cells[0]} | {cells[1]} to {cells[2]} | {arrow} |"

    lines = ["| metric | value | 95 % interval | better |", "| --- | --- | --- | --- |"]
    lines += [row(name, metric) for name, metric in metrics.items() if isinstance(metric, dict) and "value" in metric]
    lines += [row(f"recall, {label}", metric) for label, metric in metrics.get("per_class_recall", {}).items()]
    return "\n".join(lines)
