"""Nearest images by their embeddings: near duplicates that hashes miss, and same-group pairs in the case search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from medssl.audit.findings import EMBEDDINGS, ERROR, INFO, WARNING, Finding, Pair, finding, number
from medssl.audit.subject import VECTORS, Check, Outcome, Subject
from medssl.errors import DataError
from medssl.metrics.bootstrap import bounded_mean
from medssl.metrics.retrieval import unit

BLOCK = 512  # rows of the similarity matrix that are in memory at once
SPREADS = 4.0
# The natural logarithm of distances spreads by 0.3 to 0.4 in the sets that this was set on; copies must stand out
# from a set in which all neighbours are equally far, too.
LEAST_SPREAD = 0.25
FEWEST = 20  # images with a neighbour in another group; fewer have no distribution to stand out from
NEAREST_0 = 1e-6  # cosine distance that float32 cannot tell from 0
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
RESAMPLES = 1000

AlikePair = tuple[int, int, float]  # row, other row, cosine


@dataclass(frozen=True)
class Neighbors:
    """What embeddings say of a data set.

    `cosine_threshold` is the similarity from which two images count as near duplicates (None: cannot be said),
    `usual_cosine` the median similarity of an image and its nearest in another group; `alike` counts pairs above the
    threshold. `same_group` is the share of test images whose nearest train case is of their own group, with interval,
    under the given split, `same_group_image_level` the same had images been split at random (None: no test or train).
    """

    images: int
    cosine_threshold: float | None
    usual_cosine: float | None
    alike: int
    alike_across_splits: int
    same_group: dict | None
    same_group_image_level: dict | None


def vectors_of(dataset: Dataset) -> np.ndarray:
    """The `embedding` column at length one, float32 [N, D]. Raises DataError where there is none or one is unusable."""
    if "embedding" not in dataset.column_names:
        raise DataError("The data set has no column `embedding`. Embed it first.")
    useless = "Some embeddings are missing or of another length; embed the data again."
    try:
        vectors = np.asarray(dataset.select_columns(["embedding"]).with_format("numpy")[:]["embedding"], np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(useless) from error
    if vectors.ndim != 2:
        raise DataError(useless)
    return unit(vectors)


def cosine_blocks(queries: np.ndarray, cases: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Cosines of unit vectors [N, D] with cases [M, D], 512 rows at a time."""
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, min(start + BLOCK, len(queries)))
        yield rows, queries[rows] @ cases.T


def nearest_elsewhere(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The cosine [N] of each image with its nearest of another group; -inf where all are of one group."""
    best = np.empty(len(vectors), np.float32)
    for rows, cosines in cosine_blocks(vectors, vectors):
        cosines[groups[rows, None] == groups[None]] = -np.inf
        best[rows] = cosines.max(axis=1)
    return best


def cosine_threshold(nearest: np.ndarray) -> float | None:
    """The cosine from which two images are too alike to be two, from the nearest cosines [N] between groups.

    The logarithm of the distance 1 - cosine of an image and its nearest of another group is near to normal in real
    sets; the threshold lies four spreads (1.4826 x median absolute deviation) below its median. So it moves with the
    modality and the backbone: in a set where all images look alike, and every neighbour is at 0.99, only what stands
    out from that is flagged; by chance it would be about 3 of 100,000 images. A set of which more than half the images
    have a copy hides them from this rule, not from the hashes. None for fewer than 20 images, and where distances are
    too small for float32.
    """
    known = nearest[np.isfinite(nearest)]
    if len(known) < FEWEST:
        return None
    distances = np.log(np.maximum(1 - known.astype(np.float64), NEAREST_0))
    middle = np.median(distances)
    spread = max(LEAST_SPREAD, 1.4826 * float(np.median(np.abs(distances - middle))))
    distance = np.exp(middle - SPREADS * spread)
    return float(1 - distance) if distance > NEAREST_0 else None


def alike_pairs(vectors: np.ndarray, groups: np.ndarray, splits: np.ndarray, threshold: float) -> list[AlikePair]:
    """(row, later row, cosine) of at least the threshold, in different groups or different splits."""
    found = []
    for rows, cosines in cosine_blocks(vectors, vectors):
        apart = (groups[rows, None] != groups[None]) | (splits[rows, None] != splits[None])
        hits = np.argwhere(np.triu((cosines >= threshold) & apart, rows.start + 1))
        found += [(int(row) + rows.start, int(column), float(cosines[row, column])) for row, column in hits]
    return found


def image_level_split(labels: np.ndarray, splits: np.ndarray, seed: int) -> np.ndarray:
    """Splits [N] drawn image by image, heedless of groups: each class's given splits shuffled, or 60/20/20 % anew."""
    rng = np.random.default_rng(seed)
    drawn = np.array(splits, dtype=object)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if not (splits != "").all():
            counts = np.round(np.cumsum(list(SHARES.values())) * len(rows)).astype(int)
            drawn[rows] = np.repeat(list(SHARES), np.diff(counts, prepend=0))
        drawn[rows] = rng.permutation(drawn[rows])
    return drawn.astype(str)


def nearest_case(vectors: np.ndarray, queries: np.ndarray, cases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row of `queries` the nearest row of `cases`, and the cosine; both [Q]."""
    rows, similar = np.empty(len(queries), int), np.empty(len(queries), np.float32)
    for block, cosines in cosine_blocks(vectors[queries], vectors[cases]):
        best = cosines.argmax(axis=1)
        rows[block], similar[block] = cases[best], cosines[np.arange(len(best)), best]
    return rows, similar


def same_group_share(
    vectors: np.ndarray, groups: np.ndarray, splits: np.ndarray, seed: int
) -> tuple[dict | None, list[AlikePair]]:
    """The share of test images whose nearest train case is of their own group, with interval, and those pairs.

    None where test or train is empty.
    """
    queries, cases = np.flatnonzero(splits == "test"), np.flatnonzero(splits == "train")
    if not len(queries) or not len(cases):
        return None, []
    found, similar = nearest_case(vectors, queries, cases)
    same = groups[queries] == groups[found]
    own = groups[queries]
    value, low, high = bounded_mean(same, own, n_bootstrap=RESAMPLES, seed=seed)
    share = {"value": value, "low": low, "high": high, "n": len(queries), "groups": len(np.unique(own))}
    pairs = zip(queries[same].tolist(), found[same].tolist(), similar[same].tolist(), strict=True)
    return share, list(pairs)


@dataclass(frozen=True)
class Alike:
    """The pairs (row, other row, cosine) of a data set that its embeddings tell of."""

    everywhere: list[AlikePair]
    across_splits: list[AlikePair]
    same_group: list[AlikePair]


def pair_finding(dataset: Dataset, kind: str, severity: str, pairs: list[AlikePair], text: str) -> Finding:
    """A finding that names pairs of files with their splits, most alike first."""
    splits, files = dataset["split"][:], dataset["file_name"][:]
    names = [f"{file} ({split or 'none'})" for file, split in zip(files, splits, strict=True)]
    named = [f"{names[one]} = {names[other]}" for one, other, _ in sorted(pairs, key=lambda pair: -pair[2])]
    shown = [Pair([one, other], [files[one], files[other]], cosine, EMBEDDINGS) for one, other, cosine in pairs]
    return finding(kind, severity, named, text, shown)


def neighbor_findings(dataset: Dataset, neighbors: Neighbors, alike: Alike) -> list[Finding]:
    """What of it a reader should look at."""
    findings = []
    if alike.everywhere:
        text = (
            f"{number(alike.everywhere, 'pair')} of images of different groups or splits are alike to the backbone: "
            f"cosine at least {neighbors.cosine_threshold:.4f}, where the nearest of another group is usually at "
            f"{neighbors.usual_cosine:.4f}. Look at them."
        )
        findings.append(pair_finding(dataset, "alike in embedding", INFO, alike.everywhere, text))
    if alike.across_splits:
        text = (
            f"{number(alike.across_splits, 'pair')} of images in different splits are alike to the backbone (cosine "
            f"at least {neighbors.cosine_threshold:.4f}): copies or slices of one patient, unless a look shows two; "
            "test figures may be too good."
        )
        kind = "alike in embedding across splits"
        findings.append(pair_finding(dataset, kind, WARNING, alike.across_splits, text))
    if neighbors.same_group and alike.same_group:
        text = (
            f"For {neighbors.same_group['value']:.1%} of the test images the nearest training case is of their own "
            "group: a leak, classifier and search are measured on images that they know."
        )
        findings.append(pair_finding(dataset, "same group retrieved", ERROR, alike.same_group, text))
    by_image = neighbors.same_group_image_level
    if by_image and by_image["value"] > 0:
        text = (
            f"Were images split at random, heedless of groups, the nearest training case of {by_image['value']:.1%} "
            f"[{by_image['low']:.1%}, {by_image['high']:.1%}] of the test images would be of their own group."
        )
        findings.append(Finding("image-level split would leak", INFO, 1, text))
    return findings


def examine(dataset: Dataset, seed: int = 0) -> tuple[Neighbors, list[Finding]]:
    """What the embeddings of an embedded data set say, and the findings. Deterministic for a seed. Raises DataError."""
    vectors = vectors_of(dataset)
    labels, splits, groups = (np.asarray(dataset[column][:]) for column in ("label", "split", "group_id"))
    _, groups = np.unique(groups, return_inverse=True)
    nearest = nearest_elsewhere(vectors, groups)
    threshold = cosine_threshold(nearest)
    pairs = [] if threshold is None else alike_pairs(vectors, groups, splits, threshold)
    across = [pair for pair in pairs if splits[pair[0]] != splits[pair[1]]]
    share, same_group = same_group_share(vectors, groups, splits, seed)
    by_image, _ = same_group_share(vectors, groups, image_level_split(labels, splits, seed), seed)
    known = nearest[np.isfinite(nearest)]
    usual = float(np.median(known)) if len(known) else None
    neighbors = Neighbors(len(dataset), threshold, usual, len(pairs), len(across), share, by_image)
    return neighbors, neighbor_findings(dataset, neighbors, Alike(pairs, across, same_group))


def check_neighbors(subject: Subject) -> Outcome:
    """What the embeddings say of the images and their nearest others."""
    neighbors, findings = examine(subject.dataset, subject.seed)
    return Outcome(findings, {"neighbors": neighbors})


NEIGHBORS = Check("neighbors", VECTORS, check_neighbors)
