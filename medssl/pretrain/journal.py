"""What a run writes down: a CSV line a report, a plot, and a plain warning when the features collapse."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from medssl.files import written_whole

# Below these a run has all but stopped telling images apart.
LEAST_RANK = 3.0
LEAST_USAGE = 0.2  # of the largest possible entropy of prototype use


@torch.no_grad()
def effective_rank(features: torch.Tensor) -> float:
    """exp of the entropy of the singular values of centred features `[N, D]` (Roy & Vetterli 2007; RankMe)."""
    features = features.float()
    values = torch.linalg.svdvals(features - features.mean(0))
    shares = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum()))


class Journal:
    """The CSV of one run; rows after the step that a run is resumed from are dropped, so that none is there twice."""

    def __init__(self, folder: Path, step: int) -> None:
        self.file, self.plot_file = folder / "log.csv", folder / "log.png"
        self.rows: list[dict[str, str]] = []
        self.warned = False
        if self.file.exists():
            with self.file.open(newline="", encoding="utf-8") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= step]

    def add(self, facts: dict[str, float]) -> None:
        """Append a row and write the file anew, beside the old one."""
        self.rows.append({key: f"{value:.6g}" for key, value in facts.items()})
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with written_whole(self.file) as beside, beside.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)

    def collapse(self, facts: dict[str, float], usage_limit: float | None) -> str | None:
        """A sentence, once a run, when the features have collapsed; `usage_limit` is the largest usage entropy."""
        reasons = []
        if facts["effective_rank"] < LEAST_RANK:
            reasons.append(f"the features span {facts['effective_rank']:.1f} directions")
        if usage_limit and facts.get("usage_entropy", usage_limit) < LEAST_USAGE * usage_limit:
            reasons.append(f"prototype use has an entropy of {facts['usage_entropy']:.2f} of {usage_limit:.2f} nats")
        if self.warned or not reasons:
            return None
        self.warned = True
        return (
            f"Collapse at step {facts['step']:.0f}: {' and '.join(reasons)}. The encoder no longer tells images apart. "
            "Stop, and try a lower learning rate, a larger batch, or (dino) centring=sinkhorn."
        )

    def plot(self, kinds: Sequence[tuple[str, Sequence[str]]] | None = None) -> None:
        """Draw columns over images into log.png, one panel a kind of (title, columns).

        By default loss, teacher entropy, effective rank and watched accuracy.
        """
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        kinds = kinds or [
            ("loss", ["loss", "dino", "ibot"]),
            ("entropy, nats", ["teacher_entropy", "usage_entropy"]),
            ("effective rank", ["effective_rank"]),
            ("watched kNN accuracy", sorted({key for row in self.rows for key in row if key.startswith("knn_")})),
        ]
        kinds = [(title, keys) for title, keys in kinds if any(row.get(key) for row in self.rows for key in keys)]
        if not kinds:
            return
        figure, axes = pyplot.subplots(1, len(kinds), figsize=(4 * len(kinds), 3), squeeze=False)
        for axis, (title, keys) in zip(axes[0], kinds, strict=True):
            for key in keys:
                points = [(float(row["images"]), float(row[key])) for row in self.rows if row.get(key)]
                if points:
                    axis.plot(*zip(*points, strict=True), label=key)
            axis.set_xlabel("images seen")
            axis.set_title(title)
            axis.legend(fontsize=7)
        figure.tight_layout()
        with written_whole(self.plot_file) as beside:
            figure.savefig(beside, format="png", dpi=100)
        pyplot.close(figure)
