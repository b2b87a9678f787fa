"""What bundles say of images, and of whole groups (patients, slides, series): one table, from their metrics.

Each bundle's test split was measured once, when it was built; nothing is measured here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from marks import put_between

from medssl.bundle.bundle import Bundle
from medssl.errors import DataError, MedSSLError
from medssl.metrics.metric import figure_text

BEGIN, END = "<!-- Written by scripts/benchmarks/groups.py: begin -->", "<!-- end -->"
FIGURES = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "ece": "ECE",
    "conformal_coverage": "set coverage",
    "mean_set_size": "set size",
}
COLUMNS = ("task", "encoder", "counted", "how many", *FIGURES.values(), "answer of")


def rows(bundle: Bundle) -> list[str]:
    """A bundle's two rows: by image, and by group."""
    start = f"| {bundle.task.name} | {Path(str(bundle.head.backbone['id'])).name} |"
    metrics, level = bundle.metrics, bundle.metrics["group_level"]
    sides = (
        (f"images | {metrics['images']} in {metrics['groups']} groups", metrics["classification"], "the image"),
        (
            f"groups | {level['groups']}, {level['mixed_groups']} more of several classes left out",
            level["classification"],
            f"mean of {metrics['group_rule']['pooling']}",
        ),
    )
    return [
        f"{start} {counted} | {' | '.join(figure_text(figures[name]) for name in FIGURES)} | {answer} |"
        for counted, figures, answer in sides
    ]


def table(bundles: list[Bundle]) -> str:
    """All bundles as Markdown. Raises DataError for one without figures of groups."""
    for bundle in bundles:
        if not bundle.metrics.get("group_level"):
            raise DataError(f"The bundle {bundle.task.name!r} has no figures of groups: its data name none.")
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    return "\n".join([*lines, *(row for bundle in bundles for row in rows(bundle))])


def main() -> int:
    """Print the table, or put it between its markers in a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", nargs="+", required=True, help="bundle folders")
    parser.add_argument("--page", type=Path, help="the page that takes the table")
    arguments = parser.parse_args()
    try:
        text = table([Bundle.load(place) for place in arguments.bundle])
        if arguments.page:
            put_between(arguments.page, BEGIN, END, text)
    except MedSSLError as error:
        print(error, file=sys.stderr)
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
