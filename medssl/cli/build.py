"""Build a bundle from a folder or Hub data set of labelled images, and measure it on the test split."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medssl.cli import options
from medssl.cli.run import named_folders
from medssl.text import printable

if TYPE_CHECKING:
    from medssl.bundle.bundle import Bundle


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="medssl build", description=__doc__, parents=[options.of_data(), options.of_run(), options.of_cache()]
    )
    parser.add_argument("--task", required=True, help="the task's name: lung, brain, leukaemia, eye, or your own")
    parser.add_argument("--backbone", required=True, help="a registry name, a Hub id or a folder")
    parser.add_argument("--out", required=True, help="the bundle folder to write")
    parser.add_argument("--backbone-revision", metavar="REV", help="the backbone's revision on the Hub (default: main)")
    parser.add_argument("--pooling", help="cls, mean or cls+mean (default: cls where there is one, else mean)")
    parser.add_argument("--fit", choices=("squash", "pad"), help="how an image fills the frame (default: squash)")
    parser.add_argument(
        "--input-size", "--size", type=int, dest="size", help="input side in pixels (default: the backbone's)"
    )
    parser.add_argument(
        "--head",
        choices=("auto", "linear", "patch"),
        default="auto",
        help="linear on the embedding; patch: the strongest patches decide and show where; auto (default): both are "
        "fitted and validation chooses, linear where it cannot tell them apart",
    )
    parser.add_argument(
        "--explainer-seconds",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long the explainers are measured against random maps on validation (default %(default).0f; as long "
        "again where none of the quick ones beats them)",
    )
    parser.add_argument(
        "--no-explainer-check", action="store_true", help="do not measure them; ViT-CX is then shown as not checked"
    )
    parser.add_argument(
        "--others", nargs="*", default=[], metavar="DIR", help="images of other tasks, to see how many look unfamiliar"
    )
    return options.parsed(parser, given)


def print_report(bundle: Bundle) -> None:
    """Print what was measured, chosen and found."""
    from medssl.explain.choice import AUTO
    from medssl.heads.choice import describe_choice
    from medssl.metrics.metric import format_metrics

    metrics = bundle.metrics
    counts = f"{metrics['images']} test images of {metrics['groups']} groups"
    print(f"\n{bundle.task.title}: {counts}, seed {metrics['seed']}\n")
    print(format_metrics({**metrics["classification"], **metrics["retrieval"]}))
    print(describe_choice(metrics["head_choice"]))
    print(f"First heatmap: {bundle.explainer_choice.line(AUTO)}")
    for finding in metrics["audit"]["findings"]:
        print(f"{finding['severity']}: {printable(finding['message'])}")


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, build, and print the figures."""
    arguments = parse(given)

    from dataclasses import replace

    from medssl.backbones.backbone import shared_backbone
    from medssl.bundle.build import build_bundle

    started = time.perf_counter()
    backbone = shared_backbone(arguments.backbone, arguments.backbone_revision)
    preprocess = backbone.preprocess
    if arguments.fit:
        preprocess = replace(preprocess, fit=arguments.fit)
    if arguments.size:
        preprocess = replace(preprocess, size=(arguments.size, arguments.size))
    bundle = build_bundle(
        arguments.data,
        arguments.task,
        backbone,
        arguments.out,
        labels=arguments.labels,
        data_revision=arguments.data_revision,
        pooling=arguments.pooling,
        preprocess=preprocess if arguments.fit or arguments.size else None,
        others=named_folders(arguments.others),
        cache_dir=arguments.cache,
        seed=arguments.seed,
        progress=not arguments.quiet,
        head=arguments.head,
        explainer_seconds=0 if arguments.no_explainer_check else arguments.explainer_seconds,
    )
    print_report(bundle)
    print(f"\nWritten to {arguments.out} in {time.perf_counter() - started:.1f} s.")
    return 0
