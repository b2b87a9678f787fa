"""The folder of a study's report: results.parquet, report.md with its plots beside it, and report.html on its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from medssl.data.tasks import NOT_FOR_DIAGNOSIS
from medssl.errors import DataError
from medssl.files import written_whole
from medssl.study.report import tables
from medssl.study.report.answer import answer, contest, not_shown
from medssl.study.report.document import Block, Bullets, Heading, Pairs, Paragraph, Picture, to_html, to_markdown
from medssl.study.report.panels import confusion_plot, live_map, reliability_plot
from medssl.study.report.plots import accuracy_plot, label_plot
from medssl.study.results import save_rows
from medssl.study.rows import FINER
from medssl.study.study import Study, audit_backbone

TITLE = "Does self-supervision help? A study of frozen backbones"


def file_names(study: Study, kind: str) -> dict[str, str]:
    """A plot's file name for each task, with plain letters only; a number where two would be the same."""
    found: dict[str, str] = {}
    for task in study.tasks:
        plain = re.sub(r"[^a-z0-9]+", "-", task.lower()).strip("-") or "task"
        name, count = f"{kind}-{plain}.png", 2
        while name in found.values():
            name, count = f"{kind}-{plain}-{count}.png", count + 1
        found[task] = name
    return found


MAP_CAPTION = "Embeddings at length one, first two principal components, at most 1,500 images."


def overview(study: Study) -> list[Block]:
    """Scores with the audit beside them, and how they were measured."""
    shares = sorted({row.share for row in study.rows})
    blocks: list[Block] = [
        Paragraph(NOT_FOR_DIAGNOSIS),
        Heading("Scores"),
        Paragraph(
            f"Test split, groups (patients or slides) wholly in one split, seed {study.seed}; [low, high] is the 95 % "
            f"interval of {study.resamples} bootstrap resamples of whole groups. Linear, kNN and centroid: accuracy; "
            "P@5: share of the 5 most similar training cases with the image's label. C of the linear head and k of kNN "
            "were chosen on validation; every other metric, and what was chosen, is in results.parquet."
        ),
        tables.scores_with_audit(study),
        Picture("accuracy.png", "Accuracy with 95 % intervals; dotted: chance.", accuracy_plot(study)),
    ]
    perfect = tables.perfect_table(study)
    if perfect.rows:
        blocks += [
            Heading("Figures of 1.000"),
            Paragraph("No error was seen in these; the interval says how many there may be all the same."),
            perfect,
        ]
    if len(shares) > 1:
        blocks += [
            Heading("Label efficiency"),
            Paragraph(
                f"The heads fitted on a share of the training groups, at least one image of every class: the mean of "
                f"{study.draws} draws (seeds {study.seed} to {study.seed + study.draws - 1}; of one seed a larger "
                "share holds the smaller ones). [low, high] is the 95 % bootstrap interval, over test groups, of the "
                "mean over draws; sd is the standard deviation between draws, which the interval does not hold. At "
                "100 % there is one draw. Tables of kNN and centroid are in results.parquet."
            ),
            Picture("label-efficiency.png", "Accuracy over the share of training groups.", label_plot(study)),
            tables.label_table(study),
        ]
    return blocks


def comparisons(study: Study) -> list[Block]:
    """Self-supervised against supervised, then the named references."""
    shares = sorted({row.share for row in study.rows}, reverse=True)
    rows = [row for share in shares for row in contest(study, share)]
    blocks: list[Block] = [Heading("Self-supervised minus supervised")]
    counts = {(row.metric, row.share): row.comparisons for row in study.rows if row.comparisons}
    if rows:
        count, resamples = max(counts.values()), study.resamples * FINER
        counted = ", ".join(f"{counts['accuracy', share]} at {share:.0%}" for share in shares)
        blocks += [
            Paragraph(
                "Paired differences in accuracy of the linear head: same images, same resamples for both. p is the "
                f"bootstrap's, two-sided, of {resamples} resamples of whole groups; Holm's correction is over all "
                "comparisons of the same metric at the same share of labels, tasks, pairs and heads together "
                f"(accuracy: {counted}), so that none can be below {2 * count / (resamples + 1):.4f} when it is the "
                f"smallest of {count}. The other heads and metrics are in results.parquet."
            ),
            tables.comparison_table(rows),
        ]
    else:
        blocks.append(Paragraph("There was no such pair among the backbones."))
    paired = tables.differences(study)
    if paired:
        blocks += [
            Heading("Paired differences"),
            Paragraph("Every pair compared, all labels; intervals are not adjusted for their number."),
            paired,
        ]
    return blocks


def leakage(study: Study) -> list[Block]:
    """The split by group beside the split by image."""
    return [
        Heading("What leakage flatters"),
        Paragraph(
            "The paper splits images at random. Here is the same beside the split by group: each class's train, "
            f"validation and test images shuffled heedless of groups, the same sizes, mean of {study.draws} draws; kNN "
            'then may use images of the same patient or slide. "Flattered by" is the one minus the other, its interval '
            "from resamples of both test sets, which are not paired."
        ),
        tables.leakage_table(study),
    ]


def audited(study: Study) -> list[Block]:
    """What the audit found, with the worst pairs."""
    table = tables.audit_table(study)
    if table is None:
        return [Heading("Audit of the data"), Paragraph("The data was not audited.")]
    blocks: list[Block] = [Heading("Audit of the data"), table]
    if not table.rows:
        blocks = [Heading("Audit of the data"), Paragraph("Nothing was found.")]
    blocks.append(Paragraph(f"Neighbours are those in the embeddings of {audit_backbone(study.kinds)}."))
    for name, task in study.tasks.items():
        if task.worst:
            blocks += [Paragraph(f"{name}: the worst pairs of images."), Pairs(task.worst)]
    return blocks


def pictures(study: Study) -> list[Block]:
    """Reliability, confusion and the map of each task."""
    kinds: list[tuple[str, str, Callable[[Study, str], bytes]]] = [
        (
            "reliability",
            "Reliability of the linear head; a dot's area is its share of the images, the smallest dots are of few.",
            reliability_plot,
        ),
        ("confusion", "Confusion of the linear head; colour: share of the true class.", confusion_plot),
    ]
    names = {kind: file_names(study, kind) for kind in ("reliability", "confusion", "map")}
    blocks: list[Block] = []
    for task in study.tasks:
        blocks.append(Heading(f"Task {task}"))
        blocks += [Picture(names[kind][task], f"{task}. {text}", draw(study, task)) for kind, text, draw in kinds]
        blocks.append(live_map(study, task, names["map"][task], f"{task}. {MAP_CAPTION}"))
    return blocks


def details(study: Study) -> list[Block]:
    """Calibration, data, backbones, machine."""
    machine = [f"{name} {value}" for name, value in study.machine.items() if name != "hardware"]
    return [
        Heading("Linear head, all metrics"),
        tables.figures_table(tables.full_rows(study), shown=tables.CALIBRATION),
        Heading("Data"),
        tables.data_table(study),
        Heading("Backbones"),
        tables.backbone_table(study),
        Heading("Hardware, versions, seeds"),
        Bullets(
            [
                f"{study.machine.get('hardware', 'hardware not stated')}; seconds in the table above are of when each "
                "backbone was measured, with whatever embeddings were cached then.",
                f"Versions: {', '.join(machine)}.",
                f"Seed {study.seed} of splits, resamples and untrained weights; draws have the seeds {study.seed} to "
                f"{study.seed + study.draws - 1}.",
            ]
        ),
    ]


def write_report(study: Study, out: str | Path) -> None:
    """Write results.parquet, report.md with its plots, and report.html; each appears whole. Raises DataError."""
    out = Path(out)
    blocks = [
        *overview(study),
        *comparisons(study),
        *leakage(study),
        Heading("What this cannot show"),
        Bullets(not_shown(study)),
        *audited(study),
        *pictures(study),
        *details(study),
    ]
    opening = " ".join(answer(study))
    files = {block.name: block.png for block in blocks if isinstance(block, Picture)}
    files["report.md"] = to_markdown(TITLE, opening, blocks).encode()
    files["report.html"] = to_html(TITLE, opening, blocks).encode()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            with written_whole(out / name) as beside:
                beside.write_bytes(data)
        save_rows(study.rows, out / "results.parquet")
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}. Give a folder that can.") from error
