"""Write the card of a pretrained backbone from its run and a study that measured it."""

from __future__ import annotations

import argparse
from pathlib import Path

import _cli

# Of a study's report; its plots and its audit of the data stay there.
SECTIONS = ("Scores", "Paired differences", "Data", "Backbones")


def measured(report: str) -> str:
    """The sections of a report that say what a backbone was measured to do, one level of headings down."""
    parts = [part for part in report.split("\n## ")[1:] if part.splitlines()[0] in SECTIONS]
    lines = "".join(f"\n### {part.rstrip()}\n" for part in parts).splitlines()
    return "\n".join(line for line in lines if not line.startswith("![")).strip()


def main() -> int:
    """Parse the arguments and write README.md into the backbone's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True, help="a folder written by scripts/pretrain.py")
    parser.add_argument("--name", help="what it is called (default: the folder's name)")
    parser.add_argument("--study", help="report.md of a study that compared it, or a folder that holds one")
    parser.add_argument("--license", default="unknown", help="of the weights, as the Hub names it or in words")
    arguments = parser.parse_args()

    from medssl.errors import DataError
    from medssl.pretrain.card import write_backbone_card

    figures = ""
    if arguments.study:
        report = Path(arguments.study)
        report = report / "report.md" if report.is_dir() else report
        try:
            text = report.read_text("utf-8")
        except OSError as error:
            raise DataError(f"{report} cannot be read: {error.strerror}. Give what scripts/study.py wrote.") from error
        figures = measured(text)
    folder = Path(arguments.backbone)
    print(write_backbone_card(folder, arguments.name or folder.resolve().name, figures, arguments.license))
    return 0


if __name__ == "__main__":
    _cli.run(main)
