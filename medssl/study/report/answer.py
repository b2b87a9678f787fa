"""The answer of a study in three sentences, and what its data cannot show; all of it from the figures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medssl.audit.findings import ERROR, WARNING
from medssl.study.kinds import SELF, SUPERVISED
from medssl.study.results import LEAKAGE_GAP, Row
from medssl.study.runs import BY_GROUP
from medssl.study.study import Study

LEVEL = 0.05
# A backbone "is there" when it is within this of its own accuracy with all labels.
NEARLY = 0.05
FEW_GROUPS = 50


@dataclass(frozen=True)
class Tally:
    """How paired differences came out; `sure` means beyond the Holm-adjusted level."""

    count: int
    ahead: int
    behind: int
    sure_ahead: int
    sure_behind: int
    mean: float


def tally(rows: Sequence[Row]) -> Tally:
    """Counts over paired differences."""
    values = np.array([row.value for row in rows])
    sure = np.array([row.p_holm is not None and row.p_holm < LEVEL for row in rows])
    return Tally(
        len(rows),
        int((values > 0).sum()),
        int((values < 0).sum()),
        int((sure & (values > 0)).sum()),
        int((sure & (values < 0)).sum()),
        float(values.mean()),
    )


def contest(study: Study, share: float) -> list[Row]:
    """Self-supervised minus supervised, accuracy of the linear head at a share of the labels."""
    return [
        row
        for row in study.rows
        if row.reference is not None
        and (row.head, row.metric, row.share) == ("linear", "accuracy", share)
        and (study.kinds[row.backbone], study.kinds[row.reference]) == (SELF, SUPERVISED)
        and row.value is not None
    ]


def points(value: float) -> str:
    """A difference in percentage points."""
    return f"{100 * value:+.1f}"


def verdict(counts: Tally) -> str:
    """What the sure differences say."""
    if counts.sure_ahead and counts.sure_behind:
        return "Self-supervision helped in some comparisons and cost accuracy in others"
    if counts.sure_ahead:
        return "The self-supervised backbones were better"
    if counts.sure_behind:
        return "The self-supervised backbones were worse"
    return "No difference between self-supervised and supervised backbones is beyond chance"


def counted(counts: Tally) -> str:
    """A counts in words."""
    return (
        f"was higher in {counts.ahead} and lower in {counts.behind} of {counts.count} paired comparisons (beyond the "
        f"Holm-adjusted 5 % level in {counts.sure_ahead} and {counts.sure_behind}), {points(counts.mean)} percentage "
        f"points on average"
    )


def first_sentence(study: Study) -> str:
    """Who is ahead with all labels."""
    rows = contest(study, 1.0)
    if rows:
        counts = tally(rows)
        return f"{verdict(counts)} with all training labels: their accuracy under a linear head {counted(counts)}."
    missing = [kind for kind in (SELF, SUPERVISED) if kind not in study.kinds.values()]
    return (
        f"Whether self-supervision helps cannot be answered here, because no {' and no '.join(missing)} backbone was "
        f"among the {len(study.kinds)} compared."
    )


def needed_share(study: Study, kind: str) -> float | None:
    """The median share of labels with which a kind's backbones come near their own accuracy with all of them."""
    curves: dict[tuple[str, str], dict[float, float]] = {}
    for row in study.rows:
        plain = row.reference is None and row.protocol == BY_GROUP and row.value is not None
        if plain and (row.head, row.metric) == ("linear", "accuracy") and study.kinds[row.backbone] == kind:
            curves.setdefault((row.task, row.backbone), {})[row.share] = row.value
    shares = []
    for curve in curves.values():
        if 1.0 in curve and len(curve) > 1:
            shares.append(min(share for share, value in curve.items() if value >= curve[1.0] - NEARLY))
    return statistics.median_high(shares) if shares else None


def second_sentence(study: Study) -> str:
    """Who is ahead with few labels, and how many each kind needs."""
    shares = sorted({row.share for row in study.rows if row.protocol == BY_GROUP and row.share < 1})
    if not shares:
        return "Few labels were not tried."
    few = shares[0]
    images = [row.train_images for row in study.rows if row.share == few and row.train_images is not None]
    start = f"With {few:.0%} of the training groups ({np.mean(images):.0f} images on average)"
    rows = contest(study, few)
    told = f"it {counted(tally(rows))}" if rows else "no self-supervised backbone met a supervised one"
    needs = [(kind, needed_share(study, kind)) for kind in (SELF, SUPERVISED)]
    known = [f"the median {kind} backbone {share:.0%}" for kind, share in needs if share is not None]
    near = f"; to come within {100 * NEARLY:.0f} points of its own accuracy with all labels took {' and '.join(known)}"
    return f"{start} {told}{near + ' of the groups' if known else ''}."


def leakage_gaps(study: Study, head: str) -> list[Row]:
    """How much higher the accuracy of a head came out where images were split at random."""
    rows = [row for row in study.rows if row.protocol == LEAKAGE_GAP and row.value is not None]
    return [row for row in rows if (row.head, row.metric) == (head, "accuracy")]


def third_sentence(study: Study) -> str:
    """How far leakage raises accuracy, and what the audit found."""
    parts = []
    gaps = {head: leakage_gaps(study, head) for head in ("linear", "knn")}
    if all(gaps.values()):
        means = [100 * np.mean([row.value for row in rows]) for rows in gaps.values()]
        above = [sum(row.low is not None and row.low > 0 for row in rows) for rows in gaps.values()]
        most = max((row for rows in gaps.values() for row in rows), key=lambda row: row.value)
        parts.append(
            f"splitting by image instead of by group, as the paper does, moved accuracy by {means[0]:+.1f} percentage "
            f"points on average under a linear head and by {means[1]:+.1f} under kNN (upwards beyond the 95 % interval "
            f"in {above[0]} and {above[1]} of {len(gaps['linear'])}; most {points(most.value)}, {most.task}, "
            f"{most.backbone}, {most.head})"
        )
    audits = {name: task.audit for name, task in study.tasks.items() if task.audit is not None}
    if audits:
        findings = {
            name: [item for item in audit.findings if item.severity in (ERROR, WARNING)]
            for name, audit in audits.items()
        }
        troubled = [name for name, items in findings.items() if items]
        total = sum(map(len, findings.values()))
        where = f" ({', '.join(troubled)}), so scores there may come from something else than the disease"
        parts.append(
            f"the audit has {total} warnings or errors in {len(troubled)} of {len(audits)} tasks"
            f"{where if troubled else ''}"
        )
    if not parts:
        return "Neither leakage nor the data were examined."
    text = ", and ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def answer(study: Study) -> tuple[str, str, str]:
    """The three sentences that open the report."""
    return first_sentence(study), second_sentence(study), third_sentence(study)


def not_shown(study: Study) -> list[str]:
    """What the data cannot show."""
    sentences = [
        "Differences are those of these checkpoints, which differ in size, architecture, input, pretraining images and "
        "luck as well as in supervision; that supervision is the cause is not shown.",
        "A checkpoint that was pretrained on unlabelled images of these tasks knows their modality, one pretrained on "
        "photographs does not; which is the case for a folder is for its maker to say.",
        "Intervals hold the test groups to be a sample of such patients and slides; another scanner, stain, hospital "
        "or country, and another run of pretraining, are not in them.",
        "C and k were chosen on the whole validation split at every share of labels; who has few labels has few for "
        "that as well, so real accuracy with few labels is lower.",
        "The split by image is measured on other test images than the split by group, so a part of what separates them "
        "is luck of the images, which the interval holds; a backbone pretrained on a task's training images has seen "
        "some of those test images, without their labels.",
    ]
    for name, task in study.tasks.items():
        tested = next(iter(task.measured.values())).runs[0].rows
        groups = len(set(task.task_labels.groups[tested]))
        if groups < FEW_GROUPS:
            sentences.append(f"{name}: only {groups} groups in test; bootstrap intervals of so few are too narrow.")
        if len(set(task.task_labels.groups)) == len(task.task_labels.groups):
            sentences.append(f"{name}: no groups were given, so whether one patient is in train and test is unknown.")
        if len(set(task.sources)) < 2:
            sentences.append(f"{name}: one source only (or none named), so what a source gives away cannot be seen.")
    return sentences
