"""Draws the maps of bundles' cases side by side: one row a bundle, coloured by label and by source."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from matplotlib.figure import Figure

from medssl.bundle.bundle import Bundle
from medssl.errors import MedSSLError
from medssl.files import written_whole
from medssl.report.case_map import COLORS, CaseMap

INCHES = 4.2  # the side of one map


def draw(bundles: list[Bundle], out: Path) -> None:
    """Write the picture: dots only, no image of a case."""
    figure = Figure((2 * INCHES, INCHES * len(bundles)), layout="constrained")
    axes = figure.subplots(len(bundles), 2, squeeze=False)
    for row, bundle in zip(axes, bundles, strict=True):
        cases = CaseMap.of(bundle)
        for axis, coloring in zip(row, cases.colorings(), strict=True):
            for number, name in enumerate(coloring.names):
                points = cases.points[coloring.numbers == number]
                axis.scatter(points[:, 0], points[:, 1], s=7, color=COLORS[number], label=name, linewidths=0)
            axis.set_title(f"{bundle.task.name}, by {coloring.title}", fontsize=10)
            axis.legend(fontsize=8, markerscale=2, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False)
            axis.set(xticks=[], yticks=[], aspect="equal", xlim=(-0.02, 1.02))
    with written_whole(out) as beside:
        figure.savefig(beside, format="png", dpi=80)


def main() -> int:
    """Draw and say where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", nargs="+", required=True, help="bundle folders")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file to write")
    arguments = parser.parse_args()
    try:
        draw([Bundle.load(place) for place in arguments.bundle], arguments.out)
    except MedSSLError as error:
        print(error, file=sys.stderr)
        return 2
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
