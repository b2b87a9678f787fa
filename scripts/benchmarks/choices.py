"""What builds chose on validation, head and explainer, and what their test splits say of that once: two tables.

The head's test figure is the one of the build. The explainer that is shown first, and ViT-CX, are measured here, on a
seeded sample of the test split, in the way the build measured them on validation.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from medssl.backbones.frames import DecodedFrames, SelectedFrames
from medssl.bundle.bundle import Bundle
from medssl.data.load import load_data
from medssl.errors import DataError, MedSSLError
from medssl.explain.check import CheckPlan, measure_round, sample_rows
from medssl.explain.choice import title_of
from medssl.explain.vit_cx import ViTCX
from medssl.metrics.metric import figure_text

SHARED = ["task", "encoder", "validation: images (groups)"]
HEADS = [*SHARED, "linear", "patch", "patch less linear", "chosen", "test, the chosen"]
EXPLAINERS = [*SHARED, "ViT-CX", "shown first", "test: images (groups)", "ViT-CX", "shown first"]


def header(columns: list[str]) -> str:
    """The first two lines of a Markdown table."""
    return f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"


def encoder_of(bundle: Bundle) -> str:
    """The backbone's name, without where it lies."""
    return Path(str(bundle.head.backbone["id"])).name


def head_row(bundle: Bundle) -> str:
    """What was compared, what was chosen, and its test figure."""
    found = bundle.metrics["head_choice"]
    start = f"| {bundle.task.name} | {encoder_of(bundle)} |"
    test = figure_text(bundle.metrics["classification"]["balanced_accuracy"])
    if "patch_minus_linear" not in found:
        return f"{start} - | - | - | - | {found['chosen']} | {test} |"
    gap = figure_text(found["patch_minus_linear"], signed=True)
    figures = f"{figure_text(found['linear'])} | {figure_text(found['patch'])} | {gap}"
    return f"{start} {found['images']} ({found['groups']}) | {figures} | {found['chosen']} | {test} |"


def gap_text(figures: dict, method: str | None) -> str:
    """By how much an explainer is above random maps; a dash where it was not measured."""
    return figure_text(figures[method]["less_random"], signed=True) if method in figures else "-"


def explainer_row(bundle: Bundle, data: str, images: int, seed: int, progress: bool) -> str:
    """What was measured on validation, what is shown first, and what the test split says of that and of ViT-CX."""
    choice = bundle.explainer_choice
    dataset = load_data(data, labels=bundle.labels)
    rows = np.flatnonzero(np.asarray(dataset["split"][:], dtype=object) == "test")
    if not len(rows):
        raise DataError(f"{data} names no test split; give the data that the bundle was built from.")
    groups = [str(group) for group in dataset.select(rows)["group_id"][:]]
    methods = dict.fromkeys(method for method in (ViTCX.method, choice.method) if method)
    found = measure_round(
        [bundle.make_explainer(method) for method in methods],
        SelectedFrames(DecodedFrames(dataset, bundle.head.preprocess), rows),
        groups,
        sample_rows(groups, images, seed),
        CheckPlan(seconds=math.inf, images=images, seed=seed, progress=progress),
    )

    def cells(figures: dict) -> str:
        first = next(iter(figures.values()))["less_random"]
        shown = "none" if choice.method is None else title_of(choice.method)
        shown += "" if choice.method in (None, ViTCX.method) else f" {gap_text(figures, choice.method)}"
        return f"{first['n']} ({first['groups']}) | {gap_text(figures, ViTCX.method)} | {shown}"

    measured = cells(dict(choice.figures)) if choice.figures else "- | - | not checked"
    return f"| {bundle.task.name} | {encoder_of(bundle)} | {measured} | {cells(found)} |"


def main() -> int:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", nargs="+", required=True, help="bundle folders")
    parser.add_argument("--data", nargs="+", required=True, help="the data they were built from, in the same order")
    parser.add_argument("--n", type=int, default=40, help="test images a bundle (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample, the maps and the intervals")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    arguments = parser.parse_args()
    if len(arguments.bundle) != len(arguments.data):
        parser.error(f"{len(arguments.bundle)} bundles and {len(arguments.data)} data sets do not pair up.")
    try:
        bundles = [Bundle.load(place) for place in arguments.bundle]
        print("\n".join([header(HEADS), *map(head_row, bundles), "", header(EXPLAINERS)]), flush=True)
        for bundle, data in zip(bundles, arguments.data, strict=True):
            print(explainer_row(bundle, data, arguments.n, arguments.seed, not arguments.quiet), flush=True)
    except MedSSLError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
