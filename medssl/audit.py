"""Audit a data set: unreadable files, duplicates, leaks across splits, label conflicts, and shortcuts."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
from datasets import Dataset
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from medssl.data import read_record
from medssl.errors import ImageError
from medssl.images import image_id

HASH_SIDE = 16  # 16 rows of 16 differences: 256 bits
NEAR_BITS = 26  # a tenth of the bits may differ
NEAR_CORRELATION = 0.985  # of two 32-px thumbnails, to be near duplicates
THUMBNAIL = 32
MAX_EXAMPLES = 10
IMBALANCE = 5.0
# A trivial feature that gets this far from chance (0) to perfect (1) is a shortcut worth a warning.
SHORTCUT = 0.5
ERROR, WARNING, INFO = "error", "warning", "info"


@dataclass(frozen=True)
class Finding:
    """One thing the audit found: `count` says how often, `examples` where."""

    kind: str
    severity: str
    count: int
    message: str
    examples: list = field(default_factory=list)


@dataclass(frozen=True)
class Audit:
    """Everything the audit found; `undecodable` are the names of files that are no readable images."""

    images: int
    findings: list[Finding]
    undecodable: list[str]
    shortcuts: dict[str, float]
    chance: float

    @property
    def errors(self) -> list[Finding]:
        """The findings that spoil a measurement."""
        return [finding for finding in self.findings if finding.severity == ERROR]

    def to_dict(self) -> dict:
        """The audit in plain JSON types."""
        return asdict(self)

    def table(self) -> str:
        """The audit as readable text."""
        lines = [f"{self.images} images; {len(self.errors)} errors, {len(self.findings)} findings"]
        for finding in self.findings:
            lines.append(f"{finding.severity:8} {finding.kind:26} {finding.count:6}  {finding.message}")
            lines += [f"{'':43}{example}" for example in finding.examples[:3]]
        lines.append(
            f"how well trivial features alone predict the label (balanced accuracy; chance {self.chance:.2f}):"
        )
        lines += [f"{'':9}{name:26} {value:6.2f}" for name, value in self.shortcuts.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Look:
    """What one decode of an image leaves behind: id, perceptual hash, thumbnail, trivial features."""

    id: str
    bits: np.ndarray
    thumbnail: np.ndarray
    features: dict[str, np.ndarray]


def look_at(image: Image.Image) -> Look:
    """Hash, thumbnail and trivial features of an RGB image."""
    grey = image.convert("L")
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.int16)
    thumbnail = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float32).ravel()
    pixels = np.asarray(image.resize((64, 64), Image.Resampling.BOX), np.float32) / 255
    border = np.concatenate(
        [
            pixels[:3].reshape(-1, 3),
            pixels[-3:].reshape(-1, 3),
            pixels[:, :3].reshape(-1, 3),
            pixels[:, -3:].reshape(-1, 3),
        ]
    )
    histogram = [np.histogram(pixels[..., c], bins=8, range=(0, 1))[0] / pixels[..., c].size for c in range(3)]
    corners = [pixels[y : y + 8, x : x + 8].mean() for y in (0, 56) for x in (0, 56)]
    width, height = image.size
    features = {
        "image size": np.array([width, height, width / height, np.log(width * height)]),
        "mean colour": np.concatenate([pixels.mean((0, 1)), pixels.std((0, 1))]),
        "colour histogram": np.concatenate(histogram),
        "border": np.concatenate([border.mean(0), border.std(0), corners]),
    }
    return Look(image_id(image), (small[:, 1:] > small[:, :-1]).ravel(), thumbnail, features)


def audit_data(dataset: Dataset, seed: int = 0, progress: bool = True) -> Audit:
    """Look at every image once and report. Splits and groups are judged as given. Deterministic for a seed."""

    def look(index: int) -> Look | str:
        try:
            return look_at(read_record(dataset[index]))
        except ImageError as error:
            return str(error)

    names = dataset["file_name"]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        bar = tqdm(
            pool.map(look, range(len(dataset))), total=len(dataset), desc="audit", unit="img", disable=not progress
        )
        looks = list(bar)
    broken = [index for index, value in enumerate(looks) if isinstance(value, str)]
    good = np.array([index for index in range(len(looks)) if index not in set(broken)], dtype=int)
    undecodable = [names[index] for index in broken]
    findings = []
    if broken:
        examples = [f"{names[index]}: {looks[index]}" for index in broken]
        findings.append(finding("undecodable", ERROR, examples, "files cannot be read as images and are left out"))
    labels = np.array(dataset["label"])[good]
    splits = np.array(dataset["split"], dtype=str)[good]
    groups = np.array(dataset["group_id"], dtype=str)[good]
    sources = np.array(dataset["source"], dtype=str)[good]
    looks = [looks[index] for index in good]
    files = [names[index] for index in good]
    exact = exact_pairs(looks)
    near = near_pairs(looks, set(exact))
    findings += pair_findings("exact duplicates", exact, files, labels, splits)
    findings += pair_findings("near duplicates", near, files, labels, splits)
    findings += group_findings(groups, splits)
    findings += balance_findings(labels, dataset.features["label"].names)
    shortcuts: dict[str, float] = {}
    if len(looks):
        shortcuts = probe(looks, labels, groups, seed)
        if len(set(sources)) > 1:
            shortcuts["source"] = source_accuracy(sources, labels)
    chance = 1 / len(set(labels.tolist())) if len(labels) else 0.0
    for name, value in shortcuts.items():
        if (value - chance) / (1 - chance) >= SHORTCUT:
            message = f"{name} alone predicts the label with balanced accuracy {value:.2f} (chance {chance:.2f})"
            findings.append(Finding("confound" if name == "source" else "shortcut", WARNING, 1, message))
    order = {ERROR: 0, WARNING: 1, INFO: 2}
    findings.sort(key=lambda item: order[item.severity])
    return Audit(len(dataset), findings, undecodable, shortcuts, chance)


def finding(kind: str, severity: str, examples: list[str], message: str) -> Finding:
    """A finding that keeps its first examples."""
    return Finding(kind, severity, len(examples), message, examples[:MAX_EXAMPLES])


def exact_pairs(looks: list[Look]) -> list[tuple[int, int]]:
    """Index pairs of equal pictures: each later one with the first of its kind."""
    first: dict[str, int] = {}
    pairs = []
    for index, item in enumerate(looks):
        if item.id in first:
            pairs.append((first[item.id], index))
        first.setdefault(item.id, index)
    return pairs


def near_pairs(looks: list[Look], known: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Index pairs of nearly equal pictures: hashes within a tenth of their bits, confirmed by thumbnails."""
    if len(looks) < 2:
        return []
    known, pairs = set(known), []
    bits = np.stack([item.bits for item in looks]).astype(np.float32) * 2 - 1
    thumbnails = np.stack([item.thumbnail for item in looks])
    thumbnails = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    thumbnails /= np.maximum(np.linalg.norm(thumbnails, axis=1, keepdims=True), 1e-6)
    limit = bits.shape[1] - 2 * NEAR_BITS
    for start in range(0, len(looks), 512):
        agreement = bits[start : start + 512] @ bits.T
        for row, column in np.argwhere(agreement >= limit):
            one, two = int(row) + start, int(column)
            if one < two and (one, two) not in known and float(thumbnails[one] @ thumbnails[two]) >= NEAR_CORRELATION:
                pairs.append((one, two))
    return pairs


def pair_findings(
    kind: str, pairs: list[tuple[int, int]], files: list[str], labels: np.ndarray, splits: np.ndarray
) -> list[Finding]:
    """Duplicates as findings: across splits and with different labels they are errors."""

    def named(chosen: list[tuple[int, int]]) -> list[str]:
        return [f"{files[one]} = {files[two]}" for one, two in chosen]

    leaks = [(one, two) for one, two in pairs if splits[one] != splits[two]]
    conflicts = [(one, two) for one, two in pairs if labels[one] != labels[two]]
    found = []
    severity = ERROR if kind.startswith("exact") else WARNING
    if leaks:
        found.append(finding(f"{kind} across splits", ERROR, named(leaks), "pairs stand in different splits: a leak"))
    if conflicts:
        found.append(finding(f"label conflict, {kind}", severity, named(conflicts), "pairs have different labels"))
    if pairs:
        found.append(
            finding(kind, WARNING if severity == ERROR else INFO, named(pairs), "pairs of pictures are the same")
        )
    return found


def group_findings(groups: np.ndarray, splits: np.ndarray) -> list[Finding]:
    """Groups that stand in more than one split."""
    where = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        where[group].add(split)
    crossing = [f"{group}: {', '.join(sorted(found))}" for group, found in where.items() if len(found) > 1]
    return (
        [finding("group across splits", ERROR, crossing, "groups stand in several splits: a leak")] if crossing else []
    )


def balance_findings(labels: np.ndarray, names: list[str]) -> list[Finding]:
    """Classes of very different size."""
    counts = np.bincount(labels, minlength=len(names)) if len(labels) else np.zeros(len(names), int)
    if counts.max(initial=0) <= IMBALANCE * max(1, counts.min(initial=0)):
        return []
    examples = [f"{name}: {count}" for name, count in zip(names, counts, strict=True)]
    return [finding("class imbalance", INFO, examples, f"the largest class has over {IMBALANCE:g} times the smallest")]


def probe(looks: list[Look], labels: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, float]:
    """Balanced accuracy of logistic regression on trivial features, cross-validated over groups; {} with too few."""
    sizes = [len(set(groups[labels == label])) for label in set(labels.tolist())]
    folds = min(5, min(sizes, default=0))
    if folds < 2 or len(sizes) < 2:
        return {}
    tables = {name: np.stack([item.features[name] for item in looks]) for name in looks[0].features}
    tables["all of these"] = np.concatenate(list(tables.values()), axis=1)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    sides = list(splitter.split(labels, labels, groups))
    scores = {}
    for name, table in tables.items():
        predicted = np.empty_like(labels)
        for train, test in sides:
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
            predicted[test] = model.fit(table[train], labels[train]).predict(table[test])
        scores[name] = float(balanced_accuracy_score(labels, predicted))
    return scores


def source_accuracy(sources: np.ndarray, labels: np.ndarray) -> float:
    """Balanced accuracy of guessing each source's most overrepresented label."""
    shares = np.bincount(labels) / len(labels)
    guesses = {}
    for source in set(sources.tolist()):
        inside = np.bincount(labels[sources == source], minlength=len(shares)) / (sources == source).sum()
        guesses[source] = int(np.argmax(inside / np.maximum(shares, 1e-12)))
    return float(balanced_accuracy_score(labels, [guesses[source] for source in sources]))
