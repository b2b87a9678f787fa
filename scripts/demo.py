"""The synthetic demo: draw phantoms as an image folder with masks, or rebuild the bundles that come with medssl."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import _cli


def main() -> int:
    """Parse the arguments and draw or build."""
    from medssl.demo.bundles import FOLDER, build_demo_bundle
    from medssl.demo.phantom import DRAWERS, masks_of, write_phantoms

    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    phantoms = verbs.add_parser("phantoms", help="write image folders OUT/TASK, their masks in OUT/TASK/masks")
    phantoms.add_argument("--out", required=True)
    phantoms.add_argument("--per-label", type=int, default=100, help="pictures of each label (default %(default)s)")
    phantoms.add_argument("--seed", type=int, default=0)
    bundles = verbs.add_parser("bundles", help="rebuild the shipped bundles, byte for byte")
    bundles.add_argument("--out", default=str(FOLDER), help="where (default: the package's own folder)")
    for verb in (phantoms, bundles):
        verb.add_argument("--tasks", nargs="+", choices=DRAWERS, default=list(DRAWERS), help="(default: all)")
        verb.add_argument("--quiet", action="store_true", help="no progress bars")
    arguments = parser.parse_args()

    for task in arguments.tasks:
        started, place = time.perf_counter(), Path(arguments.out) / task
        if arguments.verb == "phantoms":
            write_phantoms(place, task, arguments.per_label, arguments.seed, not arguments.quiet)
            said = f"masks in {masks_of(place)}"
        else:
            bundle = build_demo_bundle(task, place, progress=not arguments.quiet)
            accuracy = bundle.metrics["classification"]["accuracy"]
            said = (
                f"accuracy {accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}], n={accuracy['n']}"
            )
        print(f"{place}: {said}, {time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    _cli.run(main)
