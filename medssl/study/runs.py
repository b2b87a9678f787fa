"""Runs: what every head said of every test image, kept as one parquet file for each backbone and task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from sklearn.decomposition import PCA

from medssl.backbones.backbone import Backbone
from medssl.backbones.embeddings import fingerprint
from medssl.files import written_whole
from medssl.heads.fit_linear import C_GRID, versions
from medssl.study.probes import KS, Outcome

RUNS_VERSION = 1
# Groups kept in one side of the split, or images drawn heedless of them.
BY_GROUP, BY_IMAGE = "groups", "images"
MAP_POINTS = 1500
SCHEMA = pa.schema(
    [
        ("protocol", pa.string()),
        ("share", pa.float64()),
        ("draw", pa.int64()),
        ("train_images", pa.int64()),
        ("train_groups", pa.int64()),
        ("rows", pa.list_(pa.int64())),
        ("head", pa.string()),
        ("metrics", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
        ("setting", pa.string()),
        ("predicted", pa.list_(pa.int64())),
        ("probabilities", pa.list_(pa.list_(pa.float64()))),
        ("sets", pa.list_(pa.list_(pa.bool_()))),
    ]
)
KINDS = {"predicted": np.int64, "probabilities": np.float64, "sets": bool}


@dataclass(frozen=True)
class Run:
    """One fit of all heads: on a `share` of the training groups, drawn with the seed `draw`.

    `rows` are the test images' places in the data set, in the order of every outcome's scores.
    """

    protocol: str
    share: float
    draw: int
    train_images: int
    train_groups: int
    rows: np.ndarray
    outcomes: list[Outcome]

    def outcome(self, head: str, metric: str) -> Outcome | None:
        """The outcome of a head that a metric is of; None where there is none."""
        return next((each for each in self.outcomes if each.head == head and metric in each.metrics), None)


@dataclass(frozen=True)
class EmbeddingMap:
    """Embeddings in two dimensions: `points [N, 2]` of the data set's `rows [N]`; the variance share of each axis."""

    rows: np.ndarray
    points: np.ndarray
    explained: tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """All runs of one backbone on one task, a map of its embeddings, and the seconds they took."""

    runs: list[Run]
    map: EmbeddingMap
    embed_seconds: float
    fit_seconds: float

    def save(self, path: Path) -> None:
        """Write one parquet file, which appears whole."""
        lines = []
        for run in self.runs:
            about = {name: getattr(run, name) for name in SCHEMA.names[:5]} | {"rows": run.rows.tolist()}
            for outcome in run.outcomes:
                arrays = {
                    name: None if (values := getattr(outcome, name)) is None else values.tolist() for name in KINDS
                }
                facts = {"head": outcome.head, "metrics": list(outcome.metrics), "setting": outcome.setting}
                lines.append({**about, **facts, "scores": outcome.scores.tolist(), **arrays})
        facts = {
            "embed_seconds": self.embed_seconds,
            "fit_seconds": self.fit_seconds,
            "map": {
                "rows": self.map.rows.tolist(),
                "points": self.map.points.tolist(),
                "explained": list(self.map.explained),
            },
        }
        table = pa.Table.from_pylist(lines, schema=SCHEMA.with_metadata({"facts": json.dumps(facts)}))
        with written_whole(path) as beside:
            pq.write_table(table, beside)

    @classmethod
    def load(cls, path: Path) -> Measured | None:
        """What was saved; None where there is no file, or one that cannot be read and has to be measured again."""
        try:
            table = pq.read_table(path)
            facts = json.loads(table.schema.metadata[b"facts"])
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
            return None
        runs: dict[tuple, Run] = {}
        for line in table.to_pylist():
            key = tuple(line[name] for name in SCHEMA.names[:5])
            run = runs.setdefault((*key, tuple(line["rows"])), Run(*key, np.array(line["rows"], np.int64), []))
            arrays = {
                name: None if line[name] is None else np.array(line[name], dtype) for name, dtype in KINDS.items()
            }
            scores = np.array(line["scores"], np.float64)
            run.outcomes.append(Outcome(line["head"], tuple(line["metrics"]), scores, line["setting"], **arrays))
        layout = facts["map"]
        points = np.array(layout["points"], np.float64).reshape(-1, 2)
        about = EmbeddingMap(np.array(layout["rows"], np.int64), points, tuple(layout["explained"]))
        return cls(list(runs.values()), about, facts["embed_seconds"], facts["fit_seconds"])


def runs_fingerprint(
    dataset: Dataset, backbone: Backbone, pooling: str, shares: Sequence[float], draws: int, seed: int
) -> str:
    """A hash of everything that decides the runs: images, labels, groups, splits, backbone, settings, versions."""
    columns = [dataset[name][:] for name in ("label", "group_id", "split")]
    identity = [
        RUNS_VERSION,
        fingerprint(dataset, backbone, backbone.preprocess, pooling),
        dataset.features["label"].names,
        columns,
        [list(shares), draws, seed, list(C_GRID), list(KS), MAP_POINTS],
        {**versions(), "scipy": version("scipy")},
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def map_embeddings(vectors: np.ndarray, seed: int) -> EmbeddingMap:
    """The first two principal components of embeddings `[N, D]` at length one, of at most 1,500 images.

    PCA and not t-SNE: its distances mean something, and how much of the variance is seen can be said. An axis points
    where its largest loading is positive, so that the map does not flip.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(vectors))[:MAP_POINTS])
    unit_rows = vectors[rows].astype(np.float64)
    unit_rows /= np.maximum(np.linalg.norm(unit_rows, axis=1, keepdims=True), 1e-12)
    components = PCA(2, svd_solver="full").fit(unit_rows)
    signs = np.sign(components.components_[np.arange(2), np.abs(components.components_).argmax(axis=1)])
    first, second = components.explained_variance_ratio_
    return EmbeddingMap(rows, components.transform(unit_rows) * signs, (float(first), float(second)))
