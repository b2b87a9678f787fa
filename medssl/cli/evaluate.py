"""Measure a bundle on labelled images: classification, calibration, retrieval, familiarity."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from medssl.cli import options
from medssl.cli.run import named_folders
from medssl.text import printable


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, measure, print the figures and write them as JSON."""
    parser = argparse.ArgumentParser(
        prog="medssl evaluate",
        description=f"{__doc__} The data has the bundle's labels.",
        parents=[options.of_source(), options.of_run(), options.of_cache()],
    )
    parser.add_argument("--bundle", required=True, help="the bundle folder")
    parser.add_argument("--split", default="test", help="the split to measure, or 'all' (default: test)")
    parser.add_argument("--out", help="where to write the figures as JSON")
    parser.add_argument(
        "--others", nargs="*", default=[], metavar="DIR", help="images of other tasks, to see how many look unfamiliar"
    )
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default: 1000)")
    arguments = options.parsed(parser, given)

    from medssl.bundle.bundle import Bundle
    from medssl.bundle.evaluate import evaluate_bundle
    from medssl.metrics import format_coverage, format_metrics

    options.check_file(arguments.out)
    bundle = Bundle.load(arguments.bundle)
    metrics = evaluate_bundle(
        bundle,
        arguments.data,
        arguments.split,
        named_folders(arguments.others, "--others"),
        arguments.resamples,
        arguments.seed,
        arguments.cache,
        not arguments.quiet,
    )
    if metrics["known_images"]:
        print(
            f"{metrics['known_images']} images are the bundle's own training or validation images (equal pixels): not "
            "counted."
        )
    if metrics["known_groups"]:
        print(
            f"{metrics['known_groups']} images are of groups called as the bundle's own training or validation groups. "
            "Where they are the same patients, these figures are too good: leave them out."
        )
    if metrics["unreadable"]:
        first = printable(", ".join(metrics["unreadable"][:3]))
        print(f"{len(metrics['unreadable'])} files are unreadable, not counted: {first}")
    print(f"{bundle.task.title}: {metrics['images']} images of {metrics['groups']} groups, seed {arguments.seed}\n")
    print("By image (every image counts):\n")
    print(format_metrics({**metrics["classification"], **metrics["retrieval"]}))
    print(f"\n{format_coverage(metrics['classification'])}\n\n{' '.join(bundle.head.thresholds.promise())}\n")
    level = metrics["group_level"]
    print(f"By group (every group counts once): {level['groups']} groups of {level['images']} images.")
    if level["mixed_groups"]:
        print(f"{level['mixed_groups']} groups whose images have different labels are not counted.")
    print(f"{bundle.group_rule.sentence()}\n\n{format_metrics(level.get('classification', {}))}\n")
    unfamiliar = metrics["unfamiliar"]
    if not unfamiliar:
        print("flagged unfamiliar: not known, the head has no familiarity threshold")
    for name, value in {"own": unfamiliar["own"], **unfamiliar["others"]}.items() if unfamiliar else ():
        print(f"flagged unfamiliar, {name}: {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]")
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 0
