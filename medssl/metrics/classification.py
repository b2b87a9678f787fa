"""Classification, calibration and retrieval metrics, each with a 95 % bootstrap interval over groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medssl.errors import DataError
from medssl.metrics.bootstrap import interval, resample

# A few hundred test images are usual here: with 15 bins a perfectly calibrated model would already score 0.04 on them.
ECE_BINS = 10
RANKS = 10
# The smallest probability that is told apart from none; scikit-learn's log_loss uses the same.
EPSILON = np.finfo(np.float64).eps
QUERY_BLOCK = 512
RETRIEVAL = ("precision_at_1", "precision_at_5", "map_at_10")


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
    return {
        "value": plain(value),
        "low": plain(low),
        "high": plain(high),
        "n": images,
        "groups": groups,
        "higher_is_better": spec.higher_is_better,
    }


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A quotient that is NaN, without complaint, where nothing was drawn."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / below


def mean_known(values: np.ndarray) -> np.ndarray:
    """Row means `[R]` of `[R, C]` over the entries that are known; NaN where none is."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))


def weighted_means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means `[R, M]` of values `[N, M]` under weights `[R, N]`."""
    return ratio(weights @ values, weights.sum(axis=1, keepdims=True))


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


def weighted_ece(weights: np.ndarray, confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Expected calibration error `[R]` (Guo et al. 2017, arXiv 1706.04599) of confidences `[N]` under `[R, N]`.

    Bins are (0, 1/10] to (9/10, 1]. A resample holds repeats, which raises its error: an interval may lie above the
    value.
    """
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gap = weights @ (np.eye(ECE_BINS)[bins] * (correct - confidence)[:, None])
    return ratio(np.abs(gap).sum(axis=1), weights.sum(axis=1))


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

    Adds `per_class_recall` (label -> metric) and `confusion_matrix` (rows true, columns predicted, order of labels).
    Means over classes leave out classes that do not occur; a value that is not defined is None. Raises DataError.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    classes, images = len(label_names), len(labels)
    check_classification(probabilities, labels, groups, classes, prediction_sets)
    predicted = probabilities.argmax(axis=1)
    correct = (predicted == labels).astype(np.float64)
    true, guessed = np.eye(classes)[labels], np.eye(classes)[predicted]
    confidence, of_truth = probabilities.max(axis=1), probabilities[np.arange(images), labels]
    means = {"accuracy": correct, "nll": -np.log(np.clip(of_truth, EPSILON, 1))}
    if prediction_sets is not None:
        sets = np.asarray(prediction_sets, bool)
        means["conformal_coverage"] = sets[np.arange(images), labels].astype(np.float64)
        means["mean_set_size"] = sets.sum(axis=1).astype(np.float64)
    names = ["balanced_accuracy", "macro_f1", "auroc", "ece", *means]

    def statistic(weights: np.ndarray) -> np.ndarray:
        support, hits = weights @ true, weights @ (true * correct[:, None])
        recall = ratio(hits, support)
        columns = [
            mean_known(recall),
            mean_known(ratio(2 * hits, support + weights @ guessed)),
            macro_auroc(weights, probabilities, labels),
            weighted_ece(weights, confidence, correct),
        ]
        return np.column_stack([*columns, weighted_means(weights, np.column_stack(list(means.values()))), recall])

    value, resampled = resample(groups, statistic, n_bootstrap, seed)
    group_names = np.asarray(groups).astype(str)
    total = len(set(group_names))
    of_class = [len(set(group_names[labels == c])) for c in range(classes)]
    rest_of_class = [len(set(group_names[labels != c])) for c in range(classes)]
    parts = {"balanced_accuracy": of_class, "macro_f1": of_class}
    of_pair = [min(pair) for pair in zip(of_class, rest_of_class, strict=True)]
    parts["auroc"] = of_pair[1:] if classes == 2 else of_pair
    found = {
        name: metric(name, value[column], resampled[:, column], images, parts.get(name, [total]), total)
        for column, name in enumerate(names)
    }
    result: dict = {name: found[name] for name in METRICS if name in found}
    result["per_class_recall"] = {
        label: metric(
            "recall",
            value[len(names) + c],
            resampled[:, len(names) + c],
            int((labels == c).sum()),
            [of_class[c]],
            of_class[c],
        )
        for c, label in enumerate(label_names)
    }
    matrix = (true.T @ guessed).astype(int)
    result["confusion_matrix"] = {"labels": list(label_names), "rows_true_columns_predicted": matrix.tolist()}
    return result


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


def check_groups(images: int, groups: Sequence[str]) -> int:
    """The number of images. Raises DataError where there are none or where groups do not fit them."""
    if images == 0:
        raise DataError("There are no images to measure on.")
    if len(groups) != images:
        raise DataError(f"{len(groups)} groups do not fit {images} images.")
    return images


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
    """P@1, P@5 and mAP@10 of cases `[M, D]` for queries `[N, D]` by cosine, the query's own group left out.

    P@k divides by k, or by the number of cases left where that is smaller. Average precision at 10 is the sum of
    precision@rank over the relevant cases among the first 10, divided by min(10, relevant cases left). Queries of whose
    label no case is left are left out of all three; `n` counts the others. Raises DataError.
    """
    images, cases = check_groups(len(query_labels), query_groups), check_groups(len(case_labels), case_groups)
    shapes = np.shape(query_embeddings), np.shape(case_embeddings)
    if [len(shape) for shape in shapes] != [2, 2] or (shapes[0][0], shapes[1][0], shapes[0][1]) != (
        images,
        cases,
        shapes[1][1],
    ):
        raise DataError(f"Embeddings of the shapes {shapes[0]} and {shapes[1]} do not fit {images} and {cases} labels.")
    query_groups, case_groups = np.asarray(query_groups).astype(str), np.asarray(case_groups).astype(str)
    scores = retrieval_scores(query_embeddings, query_labels, query_groups, case_embeddings, case_labels, case_groups)
    usable = np.isfinite(scores).all(axis=1)
    if not usable.any():
        return {name: metric(name, np.nan, np.empty(0), 0, [], 0) for name in RETRIEVAL}
    scores, groups = scores[usable], query_groups[usable]
    value, resampled = resample(groups, lambda weights: weighted_means(weights, scores), n_bootstrap, seed)
    total = len(set(groups))
    return {
        name: metric(name, value[column], resampled[:, column], len(groups), [total], total)
        for column, name in enumerate(RETRIEVAL)
    }


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings `[N, D]` at length one. Raises DataError where one has no direction."""
    embeddings = np.asarray(embeddings)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise DataError("Some embeddings are all zero or not finite; embed the data again.")
    return embeddings / norms


def similarity_blocks(
    queries: np.ndarray, query_groups: np.ndarray, cases: np.ndarray, case_groups: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of queries `[N, D]` with their cosines to cases `[n, M]`, and which cases are of another group `[n, M]`.

    Raises DataError where an embedding has no direction.
    """
    rows, stored = unit(queries), unit(cases)
    for start in range(0, len(rows), QUERY_BLOCK):
        block = slice(start, start + QUERY_BLOCK)
        yield block, rows[block] @ stored.T, query_groups[block, None] != case_groups[None]


def retrieval_scores(
    query_embeddings: np.ndarray,
    query_labels: np.ndarray,
    query_groups: np.ndarray,
    case_embeddings: np.ndarray,
    case_labels: np.ndarray,
    case_groups: np.ndarray,
) -> np.ndarray:
    """P@1, P@5 and AP@10 `[N, 3]` of each query, see `retrieval_metrics`; NaN where no case of its label is left."""
    query_labels, case_labels = np.asarray(query_labels), np.asarray(case_labels)
    return np.concatenate(
        [
            precision_scores(similarity, query_labels[block, None] == case_labels[None], allowed)
            for block, similarity, allowed in similarity_blocks(
                query_embeddings, query_groups, case_embeddings, case_groups
            )
        ]
    )


def precision_scores(similarity: np.ndarray, same: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """P@1, P@5 and AP@10 `[N, 3]` of similarities `[N, M]`; `same` label and `allowed` are bool `[N, M]`."""
    similarity = np.where(allowed, similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :RANKS]
    relevant = np.take_along_axis(same & allowed, order, axis=1)
    left = allowed.sum(axis=1)
    possible = np.minimum(RANKS, (same & allowed).sum(axis=1))
    precision = np.cumsum(relevant, axis=1) / np.arange(1, order.shape[1] + 1)
    scores = [relevant[:, :k].sum(axis=1) / np.clip(left, 1, k) for k in (1, 5)]
    scores.append(ratio((relevant * precision).sum(axis=1), possible))
    return np.where((possible > 0)[:, None], np.column_stack(scores), np.nan)


def share(flags: np.ndarray, groups: Sequence[str], n_bootstrap: int = 1000, seed: int = 0) -> dict:
    """The share of flagged images, bool `[N]`, as a metric. Raises DataError."""
    check_groups(len(flags), groups)
    values = np.asarray(flags, np.float64)[:, None]
    value, resampled = resample(groups, lambda weights: weighted_means(weights, values), n_bootstrap, seed)
    total = len(set(np.asarray(groups).astype(str)))
    return metric("share", value[0], resampled[:, 0], len(values), [total], total)


def format_metrics(metrics: Mapping, digits: int = 3) -> str:
    """Metrics as a Markdown table with intervals; per-class recalls as rows of their own."""

    def row(name: str, found: Mapping) -> str:
        cells = ["-" if found[key] is None else f"{found[key]:.{digits}f}" for key in ("value", "low", "high")]
        better = {True: "higher", False: "lower", None: ""}[found["higher_is_better"]]
        return f"| {name} | {cells[0]} | {cells[1]} to {cells[2]} | {better} |"

    lines = ["| metric | value | 95 % interval | better |", "| --- | --- | --- | --- |"]
    lines += [row(name, found) for name, found in metrics.items() if isinstance(found, Mapping) and "value" in found]
    lines += [row(f"recall, {label}", found) for label, found in metrics.get("per_class_recall", {}).items()]
    return "\n".join(lines)
