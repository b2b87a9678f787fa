"""How well the most similar cases agree with an image's label, with 95 % bootstrap intervals over groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medssl.errors import DataError
from medssl.metrics.bootstrap import Groups, ratio, resample, weighted_means
from medssl.metrics.metric import check_groups, metric

RANKS = 10
QUERY_BLOCK = 512
RETRIEVAL = ("precision_at_1", "precision_at_5", "map_at_10")


def retrieval_metrics(
    query_embeddings: np.ndarray,
    query_labels: np.ndarray,
    query_groups: Groups,
    case_embeddings: np.ndarray,
    case_labels: np.ndarray,
    case_groups: Groups,
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
    own, others = np.asarray(query_groups).astype(str), np.asarray(case_groups).astype(str)
    scores = retrieval_scores(query_embeddings, query_labels, own, case_embeddings, case_labels, others)
    usable = np.isfinite(scores).all(axis=1)
    if not usable.any():
        return {name: metric(name, np.nan, np.empty(0), 0, [], 0) for name in RETRIEVAL}
    scores, groups = scores[usable], own[usable]
    value, resampled = resample(groups, lambda weights: weighted_means(weights, scores), n_bootstrap, seed)
    total = len(set(groups))
    return {
        name: metric(name, value[column], resampled[:, column], len(groups), [total], total)
        for column, name in enumerate(RETRIEVAL)
    }


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings `[N, D]` at length one. Raises DataError, naming the first, where one has no direction."""
    embeddings = np.asarray(embeddings)
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
    if len(bad):
        raise DataError(
            f"{len(bad)} of {len(embeddings)} embeddings are all zero or not finite (first at row {bad[0]}); "
            "embed the data again."
        )
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
