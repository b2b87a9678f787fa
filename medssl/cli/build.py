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
    from medssl.bundle.build import BuildOptions
    from medssl.bundle.bundle import Bundle


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="medssl build",
        description=__doc__,
        parents=[options.of_data(), options.of_frame(), options.of_run(), options.of_cache()],
    )
    parser.add_argument("--task", required=True, help="the task's name: lung, brain, leukaemia, eye, or your own")
    parser.add_argument("--backbone", required=True, help="a registry name, a Hub id or a folder")
    parser.add_argument("--out", required=True, help="the bundle folder to write")
    parser.add_argument("--backbone-revision", metavar="REV", help="the backbone's revision on the Hub (default: main)")
    parser.add_argument(
        "--pooling",
        default="auto",
        help="what an embedding is made of: cls, mean, cls+mean; with CLS and patch means of other blocks, as "
        "cls9+cls10+cls11+cls+mean, or by name cls-last4 and cls-last4+mean (DINOv2's own); auto (default): validation "
        "chooses, the plainest where several cannot be told apart",
    )
    parser.add_argument(
        "--case-space",
        choices=("auto", "plain", "standardized", "whitened"),
        default="auto",
        help="how embeddings are mapped before similar cases are searched; auto (default): validation chooses",
    )
    parser.add_argument(
        "--embedded", metavar="DIR", help="take the embeddings of these shards (`medssl embed`) and compute none"
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
        "--no-localizer",
        action="store_true",
        help="do not fit a localizer of lesions (else: where at least five pictures a class have a box or mask)",
    )
    parser.add_argument(
        "--regions",
        action="store_true",
        help="keep the patch tokens of the library, reduced, so that a region of a picture finds the regions of cases "
        "like it (about 32 KB a case at 16 x 16 patches)",
    )
    parser.add_argument(
        "--finetune",
        choices=("lora", "last-blocks", "full"),
        metavar="MODE",
        help="first tune the backbone (lora, last-blocks, full); the frozen one is kept where that is not better. For "
        "other settings run `medssl finetune` and build on its folder",
    )
    parser.add_argument("--finetune-out", metavar="DIR", help="the tuned backbone's folder (default: OUT-backbone)")
    parser.add_argument("--finetune-epochs", type=int, default=20, help="at most (default: %(default)s)")
    parser.add_argument("--finetune-anyway", action="store_true", help="take the tuned one whatever validation says")
    parser.add_argument(
        "--others", nargs="*", default=[], metavar="DIR", help="images of other tasks, to see how many look unfamiliar"
    )
    arguments = options.parsed(parser, given)
    if arguments.embedded and arguments.finetune:
        parser.error("--embedded are embeddings of the frozen backbone; --finetune makes another. Give one of the two.")
    return arguments


def print_report(bundle: Bundle) -> None:
    """Print what was measured, chosen and found."""
    from medssl.bundle.cards.model import describe_choices
    from medssl.bundle.localize import describe_localizer
    from medssl.explain.choice import AUTO
    from medssl.metrics.metric import format_metrics
    from medssl.pretrain.finetune_guard import describe_finetune

    metrics = bundle.metrics
    counts = f"{metrics['images']} test images of {metrics['groups']} groups"
    print(f"\n{bundle.task.title}: {counts}, seed {metrics['seed']}\n")
    print(format_metrics({**metrics["classification"], **metrics["retrieval"]}))
    print("\n".join(describe_choices(metrics)))
    print(f"First heatmap: {bundle.explainer_choice.line(AUTO)}")
    if "finetune" in metrics:
        print(describe_finetune(metrics["finetune"]))
    if "localizer" in metrics:
        print(describe_localizer(metrics["localizer"]))
    for finding in metrics["audit"]["findings"]:
        print(f"{finding['severity']}: {printable(finding['message'])}")


def build_on_tuned(what: tuple, arguments: argparse.Namespace, options: BuildOptions) -> Bundle:
    """The bundle after tuning; `what` are data, task, backbone and the bundle's folder."""
    from medssl.bundle.finetuned import TuningPlan, build_finetuned
    from medssl.pretrain.finetune_recipe import FineTuneRecipe

    recipe = FineTuneRecipe(mode=arguments.finetune, epochs=arguments.finetune_epochs)
    out = arguments.finetune_out or f"{arguments.out.rstrip('/')}-backbone"
    return build_finetuned(*what, TuningPlan(out, recipe, arguments.finetune_anyway), options)


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, build, and print the figures."""
    arguments = parse(given)

    from medssl.backbones.backbone import shared_backbone
    from medssl.bundle.build import BuildOptions, build_bundle

    started = time.perf_counter()
    backbone = shared_backbone(arguments.backbone, arguments.backbone_revision)
    settings = BuildOptions(
        labels=arguments.labels,
        data_revision=arguments.data_revision,
        pooling=arguments.pooling,
        case_space=arguments.case_space,
        preprocess=options.preprocess_of(arguments, backbone.preprocess),
        others=named_folders(arguments.others, "--others"),
        embedded=arguments.embedded,
        cache_dir=arguments.cache,
        seed=arguments.seed,
        progress=not arguments.quiet,
        head=arguments.head,
        localizer=not arguments.no_localizer,
        regions=arguments.regions,
        explainer_seconds=0 if arguments.no_explainer_check else arguments.explainer_seconds,
    )
    what = (arguments.data, arguments.task, backbone, arguments.out)
    bundle = build_on_tuned(what, arguments, settings) if arguments.finetune else build_bundle(*what, settings)
    print_report(bundle)
    print(f"\nWritten to {arguments.out} in {time.perf_counter() - started:.1f} s.")
    return 0
