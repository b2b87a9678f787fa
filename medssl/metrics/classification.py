"""Classification and calibration metrics, each with a 95 % bootstrap interval over groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medssl.errors import DataError
from medssl.metrics.bootstrap import Statistic, mean_known, ratio, resample, weighted_means
from medssl.metrics.coverage import coverage_metrics
from medssl.metrics.metric import METRICS, check_groups, metric
from medssl.metrics.reliability import expected_calibration_error, reliability_bins

# The smallest probability that is told apart from none; scikit-learn's log_loss uses the same.
EPSILON = np.finfo(np.float64).eps


def weighted_auroc(weights: np.ndarray, scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under the ROC curve `[R]` of scores `[N]` under weights `[R, N]`, ties counted half; NaN without both."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    weights, positive = weights[:, order], positive[order]
    up = np.add.reduceat(weights * positive, starts, axis=1)
    down = np.add.reduceat(weights * ~positive, starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    return ratio((up * below).sum(axis=1), up.sum(axis=1) * down.sum(axis=1))


def macro_auroc(weights: np.ndarray, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One-against-the-rest AUROC `[R]`, mean over the classes that were drawn; with two classes the second's."""
    classes = range(probabilities.shape[1])
    wanted = [1] if len(classes) == 2 else classes
    return mean_known(np.stack([weighted_auroc(weights, probabilities[:, c], labels == c) for c in wanted], axis=1))


def classification_metrics(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    label_names: Sequence[str],
    prediction_sets: np.ndarray | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict:
    """Metrics of probabilities `[N, C]` against labels int `[N]`; `prediction_sets` is bool `[N, C]` or None.

    Adds `per_class_recall` (label -> metric), `confusion_matrix` (rows true, columns predicted, order of labels),
    `reliability` (see `reliability_bins`) and, with prediction sets, `coverage` (see `coverage_metrics`). Means over
    classes leave out classes that do not occur; a value that is not defined is None. Raises DataError.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    check_classification(probabilities, labels, groups, len(label_names), prediction_sets)
    names = np.asarray(groups).astype(str)
    confidence, correct = probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels).astype(np.float64)
    means = image_scores(probabilities, labels, prediction_sets)
    scored = ["balanced_accuracy", "macro_f1", "auroc", *means]
    statistic = score_statistic(probabilities, labels, np.column_stack(list(means.values())))
    value, resampled = resample(names, statistic, n_bootstrap, seed)
    of_class = [len(set(names[labels == c])) for c in range(len(label_names))]
    total, parts = len(set(names)), class_parts(names, labels, of_class)
    found = {
        name: metric(name, value[column], resampled[:, column], len(labels), parts.get(name, [total]), total)
        for column, name in enumerate(scored)
    }
    found["ece"] = expected_calibration_error(confidence, correct, names, n_bootstrap, seed)
    result: dict = {name: found[name] for name in METRICS if name in found}
    result["per_class_recall"] = {
        label: metric("recall", one, own, int((labels == c).sum()), [of_class[c]], of_class[c])
        for c, (label, one, own) in enumerate(
            zip(label_names, value[len(scored) :], resampled[:, len(scored) :].T, strict=True)
        )
    }
    matrix = np.zeros((len(label_names), len(label_names)), int)
    np.add.at(matrix, (labels, probabilities.argmax(axis=1)), 1)
    result["confusion_matrix"] = {"labels": list(label_names), "rows_true_columns_predicted": matrix.tolist()}
    result["reliability"] = reliability_bins(confidence, correct, names, n_bootstrap, seed)
    if prediction_sets is not None:
        sets = np.asarray(prediction_sets, bool)
        result["coverage"] = coverage_metrics(probabilities, labels, names, label_names, sets, n_bootstrap, seed)
    return result


def image_scores(probabilities: np.ndarray, labels: np.ndarray, sets: np.ndarray | None) -> dict[str, np.ndarray]:
    """The metrics that are plain means over images, each image's own `[N]`."""
    rows = np.arange(len(labels))
    scores = {
        "accuracy": (probabilities.argmax(axis=1) == labels).astype(np.float64),
        "nll": -np.log(np.clip(probabilities[rows, labels], EPSILON, 1)),
    }
    if sets is not None:
        sets = np.asarray(sets, bool)
        scores |= {"conformal_coverage": sets[rows, labels] * 1.0, "mean_set_size": sets.sum(axis=1) * 1.0}
    return scores


def score_statistic(probabilities: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Statistic:
    """Weights `[R, N]` -> balanced accuracy, macro F1, AUROC, the means of scores `[N, M]`, and each class's
    recall: `[R, 3 + M + C]`.
    """
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    correct = (predicted == labels).astype(np.float64)
    true, guessed = np.eye(classes)[labels], np.eye(classes)[predicted]

    def statistic(weights: np.ndarray) -> np.ndarray:
        support, hits = weights @ true, weights @ (true * correct[:, None])
        recall = ratio(hits, support)
        columns = [
            mean_known(recall),
            mean_known(ratio(2 * hits, support + weights @ guessed)),
            macro_auroc(weights, probabilities, labels),
        ]
        return np.column_stack([*columns, weighted_means(weights, scores), recall])

    return statistic


def class_parts(groups: np.ndarray, labels: np.ndarray, of_class: Sequence[int]) -> dict[str, Sequence[int]]:
    """The group counts behind each equal part of the metrics that are means over classes; see `bootstrap.interval`."""
    rest = [len(set(groups[labels != c])) for c in range(len(of_class))]
    of_pair = [min(pair) for pair in zip(of_class, rest, strict=True)]
    return {
        "balanced_accuracy": of_class,
        "macro_f1": of_class,
        "auroc": of_pair[1:] if len(of_class) == 2 else of_pair,
    }


def check_classification(
    probabilities: np.ndarray, labels: np.ndarray, groups: Sequence[str], classes: int, sets: np.ndarray | None
) -> None:
    """Raise DataError where the arrays do not fit together or hold no probabilities."""
    images = check_groups(len(labels), groups)
    if classes < 2 or probabilities.shape != (images, classes):
        raise DataError(
            f"Probabilities of the shape {probabilities.shape} do not fit {images} images of {classes} classes "
            "(at least two)."
        )
    if sets is not None and np.shape(sets) != probabilities.shape:
        raise DataError(f"Prediction sets of the shape {np.shape(sets)} do not fit {probabilities.shape}.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"Labels must be whole numbers from 0 to {classes - 1}.")
    in_range = np.isfinite(probabilities).all() and probabilities.min() >= 0
    if not in_range or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise DataError("Probabilities must be finite, not negative, and add up to 1 for every image.")
