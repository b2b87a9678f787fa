"""Write the card of a pretrained backbone from its run and a study that measured it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import _cli

# Of a study's report; its plots and its audit of the data stay there.
SECTIONS = ("Scores", "Paired differences", "Data", "Backbones")


def measured(report: str) -> str:
    """The sections of a report that say what a backbone was measured to do, one level of headings down."""
    parts = [part for part in report.split("\n## ")[1:] if part.splitlines()[0] in SECTIONS]
    lines = "".join(f"\n### {part.rstrip()}\n" for part in parts).splitlines()
    return "\n".join(line for line in lines if not line.startswith("![")).strip()


def of_readings(text: str, name: str) -> str:
    """What scripts/benchmarks/readings.py measured of a backbone on test splits, as a table."""
    lines = [
        "Test splits, seed 0; accuracy of a ridge probe whose penalty validation chose, neighbors of other groups; by",
        "`scripts/benchmarks/readings.py`. A build would take the reading in bold, chosen on validation.\n",
        "| task | reading | accuracy | P@1 | P@5 | mAP@10 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key, pair in json.loads(text).items():
        encoder, task = key.rsplit("/", 1)
        for reading, row in pair["readings"].items() if encoder == name else ():
            if row["tried_by_build"]:
                shown = f"**{reading}**" if row["chosen"] else reading
                cells = " | ".join(f"{value:.3f}" for value in row["test"].values())
                lines.append(f"| {task} | {shown} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    """Parse the arguments and write README.md into the backbone's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True, help="a folder written by scripts/pretrain.py")
    parser.add_argument("--name", help="what it is called (default: the folder's name)")
    parser.add_argument("--study", help="report.md of a study that compared it, or a folder that holds one")
    parser.add_argument("--readings", help="the JSON file of scripts/benchmarks/readings.py, where it measured it")
    parser.add_argument("--license", default="unknown", help="of the weights, as the Hub names it or in words")
    arguments = parser.parse_args()

    from medssl.errors import DataError
    from medssl.pretrain.card import write_backbone_card

    folder = Path(arguments.backbone)
    name, figures = arguments.name or folder.resolve().name, []
    for given, file, told in (
        (arguments.study, "report.md", measured),
        (arguments.readings, "readings.json", lambda text: of_readings(text, name)),
    ):
        if given:
            report = Path(given) / file if Path(given).is_dir() else Path(given)
            try:
                figures.append(told(report.read_text("utf-8")))
            except OSError as error:
                raise DataError(f"{report} cannot be read: {error.strerror}. Give what the study wrote.") from error
    print(write_backbone_card(folder, name, "\n\n".join(figures), arguments.license))
    return 0


if __name__ == "__main__":
    _cli.run(main)
