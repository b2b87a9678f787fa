"""Fit the spaces on the training cases, and choose the one that cases are compared in on validation by mAP@10."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.linalg import cholesky, inv
from sklearn.preprocessing import StandardScaler

from medssl.backbones.reading import PLAIN, STANDARDIZED, WHITENED
from medssl.data.labelled import Labelled
from medssl.library.space import NAMES_IN_WORDS, CaseSpace, mapped
from medssl.metrics.metric import figure_text
from medssl.metrics.paired import paired_difference
from medssl.metrics.retrieval import RETRIEVAL, retrieval_metrics, retrieval_scores

SHRINKAGE = 0.3  # added to the within-class covariance of Z-scores, whose variances are at most 1
MOST_NUMBERS = 4096  # of an embedding that is whitened: its map has the square of that
RESAMPLES = 1000
MEASURE = "map_at_10"
AUTO = "auto"


def standardized(train: Labelled) -> CaseSpace:
    """Each dimension less its mean, in units of its standard deviation."""
    scaler = StandardScaler().fit(train.embeddings.astype(np.float64))
    return CaseSpace(STANDARDIZED, (1 / scaler.scale_).astype(np.float32), scaler.mean_.astype(np.float32))


def whitened(train: Labelled) -> CaseSpace:
    """Z-scores times the Cholesky factor of the inverse of their within-class covariance, shrunk by + 0.3 I.

    The cosine is then that of the metric of linear discriminant analysis with a regularised covariance (Friedman 1989,
    JASA 84:165-175): directions in which images of one class differ count less.
    """
    scaler = StandardScaler().fit(train.embeddings.astype(np.float64))
    scores = scaler.transform(train.embeddings.astype(np.float64))
    for label in np.unique(train.labels):
        scores[train.labels == label] -= scores[train.labels == label].mean(axis=0)
    within = scores.T @ scores / len(scores)
    factor = cholesky(inv(within + SHRINKAGE * np.eye(len(within))), lower=True)
    matrix = (factor / scaler.scale_[:, None]).astype(np.float32)
    return CaseSpace(WHITENED, matrix, scaler.mean_.astype(np.float32))


FITS: dict[str, Callable[[Labelled], CaseSpace | None]] = {
    PLAIN: lambda _train: None,
    STANDARDIZED: standardized,
    WHITENED: whitened,
}


def fit_spaces(train: Labelled) -> dict[str, CaseSpace | None]:
    """Every space for these training cases, the plainest first; none is whitened beyond MOST_NUMBERS."""
    width = train.embeddings.shape[1]
    return {name: fit(train) for name, fit in FITS.items() if name != WHITENED or width <= MOST_NUMBERS}


def space_figures(space: CaseSpace | None, queries: Labelled, cases: Labelled, resamples: int, seed: int) -> dict:
    """P@1, P@5 and mAP@10 of cases for queries in a space, own groups left out; see `retrieval_metrics`."""
    return retrieval_metrics(*arrays(space, queries, cases), resamples, seed)


def arrays(space: CaseSpace | None, queries: Labelled, cases: Labelled) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Embeddings as they are compared, labels and groups of queries, then of cases."""
    one, other = mapped(space, queries), mapped(space, cases)
    return one.embeddings, one.labels, one.groups, other.embeddings, other.labels, other.groups


def choose_space(
    train: Labelled, validation: Labelled, asked: str = AUTO, seed: int = 0
) -> tuple[CaseSpace | None, dict]:
    """The space asked for, or of "auto" the one of highest mAP@10 on validation; and how it came about, as plain JSON.

    Fitted on train, which alone is searched; a query's own group is left out. All cost the same, so the highest is
    taken, and its paired difference from plain stands beside it (95 % interval, bootstrap over groups).
    """
    if asked != AUTO:
        return FITS[asked](train), {"asked": asked, "chosen": asked}
    spaces = fit_spaces(train)
    column = RETRIEVAL.index(MEASURE)
    scores = np.column_stack(
        [retrieval_scores(*arrays(space, validation, train))[:, column] for space in spaces.values()]
    )
    means = np.nanmean(scores, axis=0) if np.isfinite(scores).any() else np.zeros(len(spaces))
    chosen = int(np.argmax(means))  # of equals the plainest
    groups = [str(group) for group in validation.groups]
    gap = paired_difference(scores[:, chosen], scores[:, 0], groups, None, RESAMPLES, seed)
    return spaces[list(spaces)[chosen]], {
        "asked": AUTO,
        "chosen": list(spaces)[chosen],
        "split": "val",
        "measure": MEASURE,
        "images": len(validation),
        "groups": len(set(groups)),
        "seed": seed,
        "resamples": RESAMPLES,
        "tried": {name: space_figures(space, validation, train, RESAMPLES, seed) for name, space in spaces.items()},
        "chosen_minus_plain": gap,
    }


def describe_space_choice(record: Mapping) -> str:
    """How the space came about, in one sentence."""
    chosen = f"Similar cases are compared in {NAMES_IN_WORDS[record['chosen']]}"
    if record["asked"] != AUTO:
        return f"{chosen}, as asked for."
    figures = "; ".join(f"{name} {figure_text(found[MEASURE])}" for name, found in record["tried"].items())
    gap = figure_text(record["chosen_minus_plain"], signed=True)
    against = "" if record["chosen"] == PLAIN else f", {gap} above plain"
    return (
        f"{chosen}: the highest mAP@10 on {record['images']} validation images of {record['groups']} groups{against} "
        f"(own group left out, seed {record['seed']}). Tried: {figures}."
    )
