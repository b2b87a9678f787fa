"""A map of the cases: their embeddings laid out in two dimensions, and the place of a new one among them."""

from __future__ import annotations

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from medssl.library.library import embedding_matrix
from medssl.library.space import CaseSpace, in_space
from medssl.metrics.retrieval import unit

MAP_COLUMNS = ("map_x", "map_y")
# t-SNE of 2,000 cases takes seconds, and more dots than that hide each other; of more cases a seeded part is drawn.
MOST_CASES = 2_000
COMPONENTS = 30
PERPLEXITY = 30.0
NEIGHBORS = 5
FEWEST = 5  # cases below which no layout says anything


def lay_out(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Embeddings `[N, D]` in two dimensions, `[N, 2]` float32 in 0..1: PCA, then t-SNE from the first two components.

    The same vectors and seed give the same map. t-SNE: van der Maaten & Hinton, JMLR 9 (2008); the PCA start: Kobak &
    Berens, Nature Communications 10:5416 (2019). Neighbors stay neighbors; distances between groups mean little.
    """
    vectors = unit(np.asarray(vectors, np.float64))
    if len(vectors) < FEWEST:
        return in_frame(vectors[:, :2])
    count = min(COMPONENTS, *vectors.shape)
    # One thread: sums over threads come in any order, and t-SNE makes a map of its own of every last digit.
    with threadpool_limits(1):
        reduced = PCA(count, random_state=seed, svd_solver="full").fit_transform(vectors)
        perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
        layout = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(reduced)
    return in_frame(layout)


def in_frame(points: np.ndarray) -> np.ndarray:
    """Points `[N, 2]` moved and scaled, alike in both directions, into the unit square."""
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(float((high - low).max()), 1e-12)
    return ((points - (low + high) / 2) / side + 0.5).astype(np.float32)


def with_map(cases: Dataset, space: CaseSpace | None = None, seed: int = 0, split: str = "train") -> Dataset:
    """The cases with their places on the map in the columns MAP_COLUMNS; None for those that are not drawn.

    They are laid out in the `space` in which they are compared.
    Drawn are the cases of the split that a library holds, at most MOST_CASES of them, chosen by the seed.
    """
    rows = np.flatnonzero(np.asarray(cases["split"][:]) == split)
    if len(rows) > MOST_CASES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_CASES, replace=False))
    points: list[list[float] | None] = [None] * len(cases)
    if len(rows):
        layout = lay_out(in_space(space, embedding_matrix(cases.select(rows))), seed)
        for row, point in zip(rows, layout.tolist(), strict=True):
            points[row] = point
    plain = cases.remove_columns([name for name in MAP_COLUMNS if name in cases.column_names])
    columns = {name: [point and point[axis] for point in points] for axis, name in enumerate(MAP_COLUMNS)}
    features = Features({name: Value("float32") for name in MAP_COLUMNS})
    return concatenate_datasets([plain, Dataset.from_dict(columns, features=features)], axis=1)


def drawn_rows(cases: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The rows `[M]` of the cases that are on the map, and their places `[M, 2]`; none where there is no map."""
    if not set(MAP_COLUMNS) <= set(cases.column_names):
        return np.zeros(0, int), np.zeros((0, 2), np.float32)
    columns = cases.select_columns(list(MAP_COLUMNS)).with_format(None)[:]
    points = np.array([columns[name] for name in MAP_COLUMNS], np.float32).T.reshape(-1, 2)
    rows = np.flatnonzero(np.isfinite(points).all(axis=1))
    return rows, points[rows]


def place_cases(cases: Dataset, vectors: np.ndarray, space: CaseSpace | None = None) -> np.ndarray:
    """Where embeddings `[N, D]` belong on the map of the cases, compared in their space: `[N, 2]`, see `place`."""
    rows, points = drawn_rows(cases)
    return place(in_space(space, vectors), in_space(space, embedding_matrix(cases.select(rows))), points)


def place(vectors: np.ndarray, known: np.ndarray, points: np.ndarray, neighbors: int = NEIGHBORS) -> np.ndarray:
    """The mean place `[N, 2]` of each embedding's nearest known ones `[M, D]` at `points [M, 2]`, nearer ones more."""
    cosines = unit(np.asarray(vectors, np.float64)) @ unit(np.asarray(known, np.float64)).T
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :neighbors]
    weights = 1 / (1 - np.take_along_axis(cosines, nearest, axis=1) + 1e-3)
    weights /= weights.sum(axis=1, keepdims=True)
    return (points[nearest] * weights[..., None]).sum(axis=1).astype(np.float32)
