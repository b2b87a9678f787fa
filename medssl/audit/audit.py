"""Audit a data set: unreadable files, duplicates, leaks across splits, label conflicts, shortcuts and confounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from datasets import Dataset

from medssl.audit.confounds import Association
from medssl.audit.findings import ERROR, ORDER, Finding
from medssl.audit.fingerprint import Fingerprint, fingerprint_all
from medssl.audit.neighbors import Neighbors
from medssl.audit.registry import CHECKS
from medssl.audit.shortcuts import SOURCE, Shortcut
from medssl.audit.subject import IMAGES, TABLE, VECTORS, Subject
from medssl.text import printable


@dataclass(frozen=True)
class Audit:
    """Everything the audit found; `undecodable` are the names of files that are no readable images.

    `neighbors` is None until an embedded data set was looked at.
    """

    images: int
    findings: list[Finding]
    undecodable: list[str]
    shortcuts: list[Shortcut]
    associations: list[Association] = field(default_factory=list)
    neighbors: Neighbors | None = None

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
        near = found.get("neighbors") or found.get("neighbours")  # as earlier versions wrote it
        return cls(
            found["images"],
            [Finding.from_dict(item) for item in found["findings"]],
            list(found["undecodable"]),
            [Shortcut(**item) for item in found["shortcuts"]],
            [Association(**item) for item in found.get("associations", [])],
            Neighbors(**near) if near else None,
        )

    def table(self) -> str:
        """The audit as readable text, without control characters that file names or labels may hold."""
        counts = {level: sum(finding.severity == level for finding in self.findings) for level in ORDER}
        lines = [f"{self.images} images audited; findings: " + ", ".join(f"{n} {level}" for level, n in counts.items())]
        for found in self.findings:
            lines.append(f"{found.severity:8} {found.kind:30} {found.count:6}  {found.message}")
            lines += [f"{'':48}- {example}" for example in found.examples[:3]]
            if found.count > 3 and found.examples:
                lines.append(f"{'':48}- and {found.count - 3} more")
        lines += [*self.shortcut_lines(), *self.association_lines(), *self.neighbor_lines()]
        return "\n".join(map(printable, lines))

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

    def neighbor_lines(self) -> list[str]:
        """What the embeddings say, as lines."""
        near = self.neighbors
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


def run_checks(subject: Subject, needs: Collection[str]) -> tuple[list[Finding], dict]:
    """The findings of the checks that need one of these, and the fields of an Audit that they fill."""
    outcomes = [check.run(subject) for check in CHECKS if check.needs in needs]
    fields = {name: value for outcome in outcomes for name, value in outcome.fields.items()}
    return [item for outcome in outcomes for item in outcome.findings], fields


def audit_data(
    dataset: Dataset, seed: int = 0, progress: bool = True, fingerprints: Sequence[Fingerprint | str] | None = None
) -> Audit:
    """Look at every image once and report; splits and groups are judged as given. Deterministic for a seed.

    `fingerprints` are those of the rows' images where they were decoded before, or why one cannot be read.
    """
    decoded = fingerprint_all(dataset, progress) if fingerprints is None else fingerprints
    findings, fields = run_checks(Subject(dataset, decoded, seed), (TABLE, IMAGES))
    audit = Audit(len(dataset), sorted_findings(findings), **fields)
    return audit_neighbors(audit, dataset, seed) if "embedding" in dataset.column_names else audit


def audit_neighbors(audit: Audit, embedded: Dataset, seed: int = 0) -> Audit:
    """The audit with what the embeddings say of the same images (those that can be read) added. Raises DataError."""
    findings, fields = run_checks(Subject(embedded, seed=seed), (VECTORS,))
    return replace(audit, findings=sorted_findings([*audit.findings, *findings]), **fields)


def sorted_findings(findings: list[Finding]) -> list[Finding]:
    """Findings with the worst first."""
    return sorted(findings, key=lambda item: ORDER[item.severity])
