"""Audit a data set: unreadable files, duplicates, leaks across splits, label conflicts, and shortcuts."""

from __future__ import annotations

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
from datasets import Dataset
from PIL import Image
from scipy.ndimage import uniform_filter
from tqdm.auto import tqdm

from medssl.data import read_record
from medssl.errors import ImageError
from medssl.images import image_id
from medssl.shortcuts import Shortcut, probe_features, probe_sources, trivial_features

HASH_SIDE = 16  # 16 rows of 16 differences: 256 bits
HASH_MARGIN = 1  # grey levels; below it a difference is JPEG noise on a flat ground
NEAR_BITS = 40  # of the 256 may differ
NEAR_CORRELATION = 0.97  # of two thumbnails without the data set's mean thumbnail
FINE_CORRELATION = 0.95  # of what is left of two thumbnails when a 5-px mean is taken off
FINE_CLIP = 6  # grey levels: the outline of a retina or a skull must not outweigh all else
# With fewer images their mean is mostly the two images that are compared.
MEAN_FROM = 10
THUMBNAIL = 32
MAX_EXAMPLES = 10
IMBALANCE_INFO, IMBALANCE_WARNING = 3.0, 10.0
# Excess of balanced accuracy over chance (0 chance, 1 perfect), or one class told from the rest, worth a warning.
SHORTCUT_EXCESS, SHORTCUT_AUROC = 0.5, 0.95
ERROR, WARNING, INFO = "error", "warning", "info"
ORDER = {ERROR: 0, WARNING: 1, INFO: 2}


@dataclass(frozen=True)
class Finding:
    """One thing the audit found: `count` says how often, `examples` (at most ten) where."""

    kind: str
    severity: str
    count: int
    message: str
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Audit:
    """Everything the audit found; `undecodable` are the names of files that are no readable images."""

    images: int
    findings: list[Finding]
    undecodable: list[str]
    shortcuts: list[Shortcut]

    @property
    def errors(self) -> list[Finding]:
        """The findings that spoil a measurement."""
        return [finding for finding in self.findings if finding.severity == ERROR]

    def to_dict(self) -> dict:
        """The audit in plain JSON types."""
        return asdict(self)

    def table(self) -> str:
        """The audit as readable text."""
        counts = {level: sum(finding.severity == level for finding in self.findings) for level in ORDER}
        lines = [f"{self.images} images audited; findings: " + ", ".join(f"{n} {level}" for level, n in counts.items())]
        for found in self.findings:
            lines.append(f"{found.severity:8} {found.kind:30} {found.count:6}  {found.message}")
            lines += [f"{'':48}- {example}" for example in found.examples[:3]]
            if found.count > 3 and found.examples:
                lines.append(f"{'':48}- and {found.count - 3} more")
        if self.shortcuts:
            lines += [
                "",
                "What predicts the label without looking at the picture's content (cross-validated by group):",
            ]
            lines.append(f"{'':9}{'from':24} {'balanced acc.':>13} {'chance':>7}   class told apart best (AUROC)")
        for item in self.shortcuts:
            best = f"{item.best_class} ({item.auroc[item.best_class]:.2f})"
            lines.append(f"{'':9}{item.name:24} {item.balanced_accuracy:13.2f} {item.chance:7.2f}   {best}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Look:
    """What one decode leaves behind: id, hash [256] bool, thumbnail [32 * 32] float32, features by set [F]."""

    id: str
    bits: np.ndarray
    thumbnail: np.ndarray
    features: dict[str, np.ndarray]


def look_at(image: Image.Image) -> Look:
    """Hash, thumbnail and trivial features of an RGB image."""
    grey = image.convert("L")
    small = np.asarray(grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.int16)
    thumbnail = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float32).ravel()
    bits = (small[:, 1:] - small[:, :-1] > HASH_MARGIN).ravel()
    return Look(image_id(image), bits, thumbnail, trivial_features(image))


def audit_data(dataset: Dataset, seed: int = 0, progress: bool = True) -> Audit:
    """Look at every image once and report; splits and groups are judged as given. Deterministic for a seed."""

    def look(index: int) -> Look | str:
        try:
            return look_at(read_record(dataset[index]))
        except ImageError as error:
            return str(error)

    names = dataset["file_name"][:]
    with ThreadPoolExecutor(processors()) as pool:
        steps = pool.map(look, range(len(dataset)))
        looks = list(tqdm(steps, total=len(dataset), desc="audit", unit="img", disable=not progress))
    broken = [index for index, value in enumerate(looks) if isinstance(value, str)]
    good = [index for index, value in enumerate(looks) if not isinstance(value, str)]
    findings = []
    if broken:
        examples = [f"{names[index]}: {looks[index]}" for index in broken]
        text = f"{number(broken, 'file')} cannot be read as an image; building leaves them out."
        findings.append(finding("undecodable", ERROR, examples, text))
    looks, files = [looks[index] for index in good], [names[index] for index in good]
    labels, splits, groups, sources = (
        np.array(dataset[column][:])[good] for column in ("label", "split", "group_id", "source")
    )
    label_names = dataset.features["label"].names
    findings += pair_findings("exact duplicate", exact_pairs(looks), files, labels, splits, label_names)
    findings += pair_findings("near duplicate", near_pairs(looks), files, labels, splits, label_names)
    findings += group_findings(groups, splits)
    findings += balance_findings(labels, label_names)
    shortcuts = probe_features([item.features for item in looks], labels, groups, label_names, seed)
    shortcuts += probe_sources(sources, labels, groups, label_names, seed)
    findings += [shortcut_finding(item) for item in shortcuts if is_telling(item)]
    findings.sort(key=lambda item: ORDER[item.severity])
    return Audit(len(dataset), findings, [names[index] for index in broken], shortcuts)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def number(items: list, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


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


def near_pairs(looks: list[Look]) -> list[tuple[int, int]]:
    """Index pairs of nearly equal pictures; of equal ones only the first of their kind is compared.

    Hashes that agree are confirmed by two correlations of thumbnails: after the data set's mean thumbnail is taken off
    (retinas or slices of different patients share the layout that the mean holds: raw correlation up to 0.99), and of
    their fine detail (a rare layout shared by two patients is not in the mean). A re-saved copy passes both.
    """
    first = {item.id: index for index, item in reversed(list(enumerate(looks)))}
    kept = np.array(sorted(first.values()), dtype=int)
    if len(kept) < 2:
        return []
    bits = np.stack([looks[index].bits for index in kept]).astype(np.float32) * 2 - 1
    thumbnails = np.stack([looks[index].thumbnail for index in kept])
    square = thumbnails.reshape(-1, THUMBNAIL, THUMBNAIL)
    fine = unit(np.clip(square - uniform_filter(square, (0, 5, 5)), -FINE_CLIP, FINE_CLIP).reshape(len(kept), -1))
    coarse = unit(thumbnails - thumbnails.mean(axis=0) if len(kept) >= MEAN_FROM else thumbnails)
    limit, pairs = bits.shape[1] - 2 * NEAR_BITS, []
    for start in range(0, len(kept), 512):
        near = bits[start : start + 512] @ bits.T >= limit
        for row, column in np.argwhere(np.triu(near, start + 1)):
            one, two = row + start, column
            if coarse[one] @ coarse[two] >= NEAR_CORRELATION and fine[one] @ fine[two] >= FINE_CORRELATION:
                pairs.append((int(kept[one]), int(kept[two])))
    return pairs


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows [N, P] centred and of length 1; a row without any structure stays 0, so that it is near to none."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-3)


def pair_findings(
    kind: str,
    pairs: list[tuple[int, int]],
    files: list[str],
    labels: np.ndarray,
    splits: np.ndarray,
    label_names: list[str],
) -> list[Finding]:
    """Duplicates as findings: across splits, or equal pictures with different labels, they are errors."""
    exact = kind.startswith("exact")
    leaks = [(one, two) for one, two in pairs if splits[one] != splits[two]]
    conflicts = [(one, two) for one, two in pairs if labels[one] != labels[two]]
    what = "the same picture" if exact else "nearly the same picture"
    found = []
    if pairs:
        named = [f"{files[one]} = {files[two]}" for one, two in pairs]
        text = f"{number(pairs, 'pair')} of files show {what}; they count more than once."
        found.append(finding(kind, WARNING if exact else INFO, named, text))
    if leaks:
        named = [
            f"{files[one]} ({splits[one] or 'none'}) = {files[two]} ({splits[two] or 'none'})" for one, two in leaks
        ]
        text = f"{number(leaks, 'pair')} of files in different splits show {what}: a leak, test figures are too good."
        found.append(finding(f"{kind} across splits", ERROR, named, text))
    if conflicts:
        named = [
            f"{files[one]} ({label_names[labels[one]]}) = {files[two]} ({label_names[labels[two]]})"
            for one, two in conflicts
        ]
        text = f"{number(conflicts, 'pair')} of files with different labels show {what}; one label is wrong."
        found.append(finding(f"label conflict, {kind}", ERROR if exact else WARNING, named, text))
    return found


def group_findings(groups: np.ndarray, splits: np.ndarray) -> list[Finding]:
    """Groups that stand in more than one split."""
    where = defaultdict(set)
    for group, split in zip(groups.tolist(), splits.tolist(), strict=True):
        where[group].add(split)
    crossing = [
        f"{group}: {', '.join(sorted(name or 'none' for name in found))}"
        for group, found in where.items()
        if len(found) > 1
    ]
    text = f"{number(crossing, 'group')} (patient or slide) in several splits: a leak, test figures are too good."
    return [finding("group across splits", ERROR, crossing, text)] if crossing else []


def balance_findings(labels: np.ndarray, names: list[str]) -> list[Finding]:
    """Classes of very different size."""
    counts = np.bincount(labels.astype(int), minlength=len(names))
    ratio = counts.max() / max(1, counts.min())
    if ratio < IMBALANCE_INFO:
        return []
    sizes = ", ".join(f"{name} {count}" for name, count in zip(names, counts.tolist(), strict=True))
    severity = WARNING if ratio >= IMBALANCE_WARNING else INFO
    text = f"The largest class has {ratio:.1f} times the images of the smallest: {sizes}."
    return [Finding("class imbalance", severity, 1, text)]


def is_telling(item: Shortcut) -> bool:
    """Whether a trivial feature predicts the label, or one class, too well."""
    return item.excess >= SHORTCUT_EXCESS or max(item.auroc.values()) >= SHORTCUT_AUROC


def shortcut_finding(item: Shortcut) -> Finding:
    """The warning for one shortcut."""
    told = [f"{name} {value:.2f}" for name, value in item.auroc.items() if value >= SHORTCUT_AUROC]
    classes = f" Told from the rest (AUROC): {', '.join(told)}." if told else ""
    text = (
        f"From {item.name} alone the label is predicted with balanced accuracy {item.balanced_accuracy:.2f} "
        f"(chance {item.chance:.2f}).{classes} A model may have learnt this instead of the disease."
    )
    return Finding("source confound" if item.name == "source" else "shortcut", WARNING, 1, text)
