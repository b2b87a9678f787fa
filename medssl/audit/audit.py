"""Audit a data set: unreadable files, duplicates, leaks across splits, label conflicts, shortcuts and confounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from medssl.audit.confounds import Association, associate, confound_findings, frame_kinds
from medssl.audit.findings import ERROR, INFO, ORDER, PIXELS, THUMBNAILS, WARNING, Finding, Pair, finding, number
from medssl.audit.near_duplicates import Look, Match, exact_pairs, look_at, near_pairs, turned_pairs, unit
from medssl.audit.neighbors import Neighbours, examine
from medssl.audit.shortcuts import FRAME, SOURCE, Shortcut, probe_features, probe_sources
from medssl.data.load import read_record
from medssl.errors import ImageError
from medssl.runtime import processors

IMBALANCE_INFO, IMBALANCE_WARNING = 3.0, 10.0
# What a pair of pictures is called, how it is written, what it shows, and how similarity is measured.
EXACT = ("exact duplicate", "the same picture", PIXELS)
NEAR = ("near duplicate", "nearly the same picture", THUMBNAILS)
TURNED = ("turned copy", "nearly the same picture, mirrored or turned", THUMBNAILS)


@dataclass(frozen=True)
class Audit:
    """Everything the audit found; `undecodable` are the names of files that are no readable images.

    `neighbours` is None until an embedded data set was looked at.
    """

    images: int
    findings: list[Finding]
    undecodable: list[str]
    shortcuts: list[Shortcut]
    associations: list[Association] = field(default_factory=list)
    neighbours: Neighbours | None = None

    @property
    def errors(self) -> list[Finding]:
        """The findings that spoil a measurement."""
        return [finding for finding in self.findings if finding.severity == ERROR]

    def to_dict(self) -> dict:
        """The audit in plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping) -> Audit:
        """An audit back from its plain JSON form, as metrics.json of a bundle holds it."""
        near = found.get("neighbours")
        return cls(
            found["images"],
            [Finding.from_dict(item) for item in found["findings"]],
            list(found["undecodable"]),
            [Shortcut(**item) for item in found["shortcuts"]],
            [Association(**item) for item in found.get("associations", [])],
            Neighbours(**near) if near else None,
        )

    def table(self) -> str:
        """The audit as readable text."""
        counts = {level: sum(finding.severity == level for finding in self.findings) for level in ORDER}
        lines = [f"{self.images} images audited; findings: " + ", ".join(f"{n} {level}" for level, n in counts.items())]
        for found in self.findings:
            lines.append(f"{found.severity:8} {found.kind:30} {found.count:6}  {found.message}")
            lines += [f"{'':48}- {example}" for example in found.examples[:3]]
            if found.count > 3 and found.examples:
                lines.append(f"{'':48}- and {found.count - 3} more")
        return "\n".join([*lines, *self.shortcut_lines(), *self.association_lines(), *self.neighbour_lines()])

    def shortcut_lines(self) -> list[str]:
        """What predicts the label, as lines of a table."""
        if not self.shortcuts:
            return []
        lines = ["", "What predicts the label without looking at the picture's content (cross-validated by group):"]
        lines.append(
            f"{'':9}{'from':24} {'balanced acc.':>13} {'95 % interval':>14} {'chance':>7}   class told apart best"
        )
        for item in self.shortcuts:
            best = f"{item.best_class} (AUROC {item.auroc[item.best_class]:.2f})"
            between = f"{item.low:.2f} to {item.high:.2f}"
            lines.append(
                f"{'':9}{item.name:24} {item.balanced_accuracy:13.2f} {between:>14} {item.chance:7.2f}   {best}"
            )
        return lines

    def association_lines(self) -> list[str]:
        """What hangs together with the label, as lines of a table."""
        lines = []
        for item in self.associations:
            classes = ", ".join(f"{label} {v:.2f}" for label, v in item.v_by_class.items())
            what = "the source" if item.name == SOURCE else "the kind of frame"
            lines += ["", f"Cramer's V of the label and {what}: {item.v:.2f}; against the rest: {classes}"]
            lines += [
                f"{'':9}{kind or 'no source':24} " + ", ".join(f"{label} {n}" for label, n in row.items())
                for kind, row in item.counts.items()
            ]
        return lines

    def neighbour_lines(self) -> list[str]:
        """What the embeddings say, as lines."""
        near = self.neighbours
        if near is None:
            return []
        lines = ["", "Nearest images by their embeddings:"]
        if near.cosine_threshold is not None and near.usual_cosine is not None:
            lines.append(
                f"{'':9}nearest of another group: cosine {near.usual_cosine:.4f} (median); alike from "
                f"{near.cosine_threshold:.4f}: {near.alike} pairs, {near.alike_across_splits} of them across splits"
            )
        given, drawn = (
            "no test or train split"
            if share is None
            else f"{share['value']:.1%} [{share['low']:.1%}, {share['high']:.1%}]"
            for share in (near.same_group, near.same_group_image_level)
        )
        lines.append(f"{'':9}nearest training case of a test image is of its own group: {given}")
        lines.append(f"{'':9}the same, were images split at random, heedless of groups: {drawn}")
        return lines


def audit_data(
    dataset: Dataset, seed: int = 0, progress: bool = True, fingerprints: Sequence[Look | str] | None = None
) -> Audit:
    """Look at every image once and report; splits and groups are judged as given. Deterministic for a seed.

    `fingerprints` are those of the rows' images where they were decoded before: a Look, or why it cannot be read.
    """
    looks = list(fingerprints) if fingerprints is not None else look_at_all(dataset, progress)
    names = dataset["file_name"][:]
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
    near = near_pairs(looks)
    for what, matches in ((EXACT, exact_pairs(looks)), (NEAR, near), (TURNED, turned_pairs(looks, near))):
        findings += pair_findings(what, matches, files, good, labels, splits, label_names)
    findings += group_findings(groups, splits, files, good, looks)
    findings += balance_findings(labels, label_names)
    shortcuts = probe_features([item.features for item in looks], labels, groups, label_names, seed)
    shortcuts += probe_sources(sources, labels, groups, label_names, seed)
    kinds = frame_kinds(np.array([item.features[FRAME] for item in looks]), seed)
    facts = {SOURCE: sources, **({FRAME: kinds} if len(kinds) else {})}
    found = [associate(name, values, labels, groups, label_names) for name, values in facts.items()]
    associations = [item for item in found if item is not None]
    findings += confound_findings(shortcuts, associations)
    broken_names = [names[index] for index in broken]
    audit = Audit(len(dataset), sorted_findings(findings), broken_names, shortcuts, associations)
    return audit_neighbours(audit, dataset, seed) if "embedding" in dataset.column_names else audit


def look_at_all(dataset: Dataset, progress: bool = True) -> list[Look | str]:
    """The Look of every image, or why it cannot be read."""

    def look(index: int) -> Look | str:
        try:
            return look_at(read_record(dataset[index]))
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(processors()) as pool:
        steps = pool.map(look, range(len(dataset)))
        return list(tqdm(steps, total=len(dataset), desc="audit", unit="img", disable=not progress))


def audit_neighbours(audit: Audit, embedded: Dataset, seed: int = 0) -> Audit:
    """The audit with what the embeddings say of the same images (those that can be read) added. Raises DataError."""
    neighbours, findings = examine(embedded, seed)
    return replace(audit, findings=sorted_findings([*audit.findings, *findings]), neighbours=neighbours)


def sorted_findings(findings: list[Finding]) -> list[Finding]:
    """Findings with the worst first."""
    return sorted(findings, key=lambda item: ORDER[item.severity])


def pair_findings(
    what: tuple[str, str, str],
    matches: list[Match],
    files: list[str],
    rows: list[int],
    labels: np.ndarray,
    splits: np.ndarray,
    label_names: list[str],
) -> list[Finding]:
    """Duplicates as findings: across splits, or equal pictures with different labels, they are errors.

    `rows` are the places in the data set of the looks that the matches count.
    """
    kind, shows, measure = what
    exact = kind == EXACT[0]
    leaks = [match for match in matches if splits[match.one] != splits[match.two]]
    conflicts = [match for match in matches if labels[match.one] != labels[match.two]]

    def told(kind: str, severity: str, found: list[Match], facts: list[str] | None, text: str) -> Finding:
        """A finding whose examples name the two files, each with its fact, and the turn."""
        named, pairs = [], []
        for match in found:
            names = [files[match.one], files[match.two]]
            one, two = (
                name if facts is None else f"{name} ({facts[index]})"
                for name, index in zip(names, match[:2], strict=True)
            )
            named.append(f"{one} = {two}" + (f", {match.turn}" if match.turn else ""))
            places = [rows[match.one], rows[match.two]]
            pairs.append(Pair(places, names, match.similarity, measure, match.turn))
        return finding(kind, severity, named, text, pairs)

    found = []
    if matches:
        text = f"{number(matches, 'pair')} of files show {shows}; they count more than once."
        found.append(told(kind, WARNING if exact else INFO, matches, None, text))
    if leaks:
        text = f"{number(leaks, 'pair')} of files in different splits show {shows}: a leak, test figures are too good."
        names = [split or "none" for split in splits.tolist()]
        found.append(told(f"{kind} across splits", ERROR, leaks, names, text))
    if conflicts:
        text = f"{number(conflicts, 'pair')} of files with different labels show {shows}; one label is wrong."
        names = [label_names[label] for label in labels]
        severity = ERROR if exact else WARNING
        found.append(told(f"label conflict, {kind}", severity, conflicts, names, text))
    return found


def group_findings(
    groups: np.ndarray, splits: np.ndarray, files: list[str], rows: list[int], looks: list[Look]
) -> list[Finding]:
    """Groups that stand in more than one split; of each the two most similar images of different splits."""
    where = defaultdict(list)
    for index, group in enumerate(groups.tolist()):
        where[group].append(index)
    crossing, pairs = [], []
    for group, members in where.items():
        sides = splits[members]
        if len(set(sides)) < 2:
            continue
        crossing.append(f"{group}: {', '.join(sorted(name or 'none' for name in set(sides)))}")
        thumbnails = unit(np.stack([looks[index].thumbnail for index in members]))
        similar = np.where(sides[:, None] != sides[None], thumbnails @ thumbnails.T, -np.inf)
        one, two = np.unravel_index(similar.argmax(), similar.shape)
        first, second = sorted((members[one], members[two]))
        similarity = min(1.0, float(similar[one, two]))
        pairs.append(Pair([rows[first], rows[second]], [files[first], files[second]], similarity, THUMBNAILS))
    text = f"{number(crossing, 'group')} (patient or slide) in several splits: a leak, test figures are too good."
    return [finding("group across splits", ERROR, crossing, text, pairs)] if crossing else []


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
