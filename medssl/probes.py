"""Plain heads that show what a backbone's embeddings are worth: linear, kNN, nearest centroid and retrieval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medssl.evaluation import QUERY_BLOCK, precision_scores, unit
from medssl.training import Part, choose_linear

KS = (1, 3, 5, 10, 20)
ACCURACIES = ("accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class Outcome:
    """How a head did on each test image: `scores [N]`, 0 or 1 (retrieval: a share, NaN where no case can be right).

    `setting` is what validation chose.
    """

    head: str
    metrics: tuple[str, ...]
    scores: np.ndarray
    setting: str = ""


def similarity_blocks(queries: Part, cases: Part) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of queries with their cosines `[n, M]`, and bool `[n, M]`: which cases are of another group."""
    # In float64: untrained embeddings may all have cosines near 1, where float32 confuses their order.
    rows, stored = (unit(part.embeddings.astype(np.float64)) for part in (queries, cases))
    for start in range(0, len(rows), QUERY_BLOCK):
        block = slice(start, start + QUERY_BLOCK)
        yield block, rows[block] @ stored.T, queries.groups[block, None] != cases.groups[None]


def nearest_cases(queries: Part, cases: Part, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and votes `[N, K]` of the most similar cases of other groups, best first.

    A vote is 1 + cosine, so that no case votes against its own label; 0 where no case is left.
    """
    labels, votes = [], []
    for _, similarity, allowed in similarity_blocks(queries, cases):
        similarity = np.where(allowed, similarity, -np.inf)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        found = np.take_along_axis(similarity, order, axis=1)
        labels.append(cases.labels[order])
        votes.append(np.where(np.isfinite(found), 1 + found, 0))
    return np.concatenate(labels), np.concatenate(votes)


def count_votes(labels: np.ndarray, votes: np.ndarray, k: int, classes: int) -> np.ndarray:
    """The label with most votes among the first k cases `[N]`, the first of equal ones; -1 where no case is left."""
    totals = (np.eye(classes)[labels[:, :k]] * votes[:, :k, None]).sum(axis=1)
    return np.where(totals.max(axis=1) > 0, totals.argmax(axis=1), -1)


def predict_knn(train: Part, validation: Part, test: Part, classes: int) -> tuple[np.ndarray, int]:
    """Labels `[N]` by similarity-weighted vote of the k most similar training cases; k is the smallest best on val."""
    found = nearest_cases(validation, train, max(KS))
    right = {k: float((count_votes(*found, k, classes) == validation.labels).mean()) for k in KS}
    chosen = max(KS, key=right.__getitem__)
    return count_votes(*nearest_cases(test, train, chosen), chosen, classes), chosen


def predict_centroid(train: Part, test: Part, classes: int) -> np.ndarray:
    """Labels `[N]` of the nearest class mean of unit embeddings, by cosine."""
    vectors = unit(train.embeddings.astype(np.float64))
    means = np.stack([vectors[train.labels == label].mean(axis=0) for label in range(classes)])
    return (test.embeddings @ unit(means).T).argmax(axis=1)


def precision_at_5(queries: Part, cases: Part) -> np.ndarray:
    """The share `[N]` of the 5 most similar cases with the query's label, as in `evaluation.retrieval_metrics`."""
    return np.concatenate(
        [
            precision_scores(similarity, queries.labels[block, None] == cases.labels[None], allowed)[:, 1]
            for block, similarity, allowed in similarity_blocks(queries, cases)
        ]
    )


def score_heads(train: Part, validation: Part, test: Part, classes: int) -> list[Outcome]:
    """How every head, fitted on train and set on validation, does on each test image."""
    weight, bias, C, _ = choose_linear(train, validation, classes)
    linear = (test.embeddings @ weight.T + bias).argmax(axis=1)
    knn, k = predict_knn(train, validation, test, classes)
    centroid = predict_centroid(train, test, classes)
    predicted = (("linear", linear, f"C={C:g}"), ("knn", knn, f"k={k}"), ("centroid", centroid, ""))
    heads = [
        Outcome(name, ACCURACIES, (labels == test.labels).astype(np.float64), chosen)
        for name, labels, chosen in predicted
    ]
    return [*heads, Outcome("retrieval", ("precision_at_5",), precision_at_5(test, train))]
