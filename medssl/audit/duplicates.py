"""Check: pictures that are there twice, equal, nearly equal, mirrored or turned."""

from __future__ import annotations

from medssl.audit.findings import ERROR, INFO, PIXELS, THUMBNAILS, WARNING, Finding, Pair, finding, number
from medssl.audit.near_duplicates import Match, exact_pairs, near_pairs, turned_pairs
from medssl.audit.subject import IMAGES, Check, Outcome, Subject

# What a pair of pictures is called, how it is written, what it shows, and how similarity is measured.
EXACT = ("exact duplicate", "the same picture", PIXELS)
NEAR = ("near duplicate", "nearly the same picture", THUMBNAILS)
TURNED = ("turned copy", "nearly the same picture, mirrored or turned", THUMBNAILS)


def check_duplicates(subject: Subject) -> Outcome:
    """Exact, near and turned copies; each kind by itself, across splits, and with different labels."""
    near = near_pairs(subject.fingerprints)
    kinds = (
        (EXACT, exact_pairs(subject.fingerprints)),
        (NEAR, near),
        (TURNED, turned_pairs(subject.fingerprints, near)),
    )
    return Outcome([item for what, matches in kinds for item in pair_findings(what, matches, subject)])


def pair_findings(what: tuple[str, str, str], matches: list[Match], subject: Subject) -> list[Finding]:
    """Duplicates as findings: across splits, or equal pictures with different labels, they are errors."""
    files, rows, labels, splits = subject.files, subject.rows, subject.labels, subject.splits
    kind, shows, measure = what
    exact = kind == EXACT[0]
    leaks = [match for match in matches if splits[match.one] != splits[match.two]]
    conflicts = [match for match in matches if labels[match.one] != labels[match.two]]

    def described(kind: str, severity: str, chosen: list[Match], facts: list[str] | None, text: str) -> Finding:
        """A finding whose examples name the two files, each with its fact, and the turn."""
        named, pairs = [], []
        for match in chosen:
            names = [files[match.one], files[match.two]]
            one, two = (
                name if facts is None else f"{name} ({facts[index]})"
                for name, index in zip(names, match[:2], strict=True)
            )
            named.append(f"{one} = {two}" + (f", {match.turn}" if match.turn else ""))
            places = [rows[match.one], rows[match.two]]
            pairs.append(Pair(places, names, match.similarity, measure, match.turn))
        return finding(kind, severity, named, text, pairs)

    findings = []
    if matches:
        text = f"{number(matches, 'pair')} of files show {shows}; they count more than once."
        findings.append(described(kind, WARNING if exact else INFO, matches, None, text))
    if leaks:
        text = f"{number(leaks, 'pair')} of files in different splits show {shows}: a leak, test figures are too good."
        names = [split or "none" for split in splits.tolist()]
        findings.append(described(f"{kind} across splits", ERROR, leaks, names, text))
    if conflicts:
        text = f"{number(conflicts, 'pair')} of files with different labels show {shows}; one label is wrong."
        names = [subject.label_names[label] for label in labels]
        severity = ERROR if exact else WARNING
        findings.append(described(f"label conflict, {kind}", severity, conflicts, names, text))
    return findings


DUPLICATES = Check("duplicates", IMAGES, check_duplicates)
