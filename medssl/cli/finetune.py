"""Adapt an encoder to a task with labels, and say whether that helped; `accelerate launch` for several processes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medssl.cli import options
from medssl.cli.run import INTERRUPTED, named_folders
from medssl.text import printable

if TYPE_CHECKING:
    from medssl.pretrain.finetune_recipe import FineTuneRecipe


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """The options that decide what tuning does, beside its mode."""
    from medssl.pretrain.finetune_recipe import FineTuneRecipe as Recipe
    from medssl.pretrain.views import POLICIES

    parser.add_argument("--epochs", type=int, default=Recipe.epochs, help="at most (default: %(default)s)")
    parser.add_argument(
        "--patience", type=int, default=Recipe.patience, help="epochs without a lower validation loss before it ends"
    )
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size, help="images a step, over all processes")
    parser.add_argument(
        "--accumulate", type=int, default=Recipe.accumulate, metavar="N", help="forwards that a step is made of"
    )
    parser.add_argument("--learning-rate", type=float, help="peak, of the last layers (default: the mode's)")
    parser.add_argument(
        "--layer-decay", type=float, default=Recipe.layer_decay, help="learning rate of a block relative to the next"
    )
    parser.add_argument("--blocks", type=int, default=Recipe.blocks, help="how many last-blocks tunes")
    parser.add_argument("--rank", type=int, default=Recipe.rank, help="of the adapters of lora")
    parser.add_argument("--views", choices=POLICIES, help="augmentation (default: the task's)")
    parser.add_argument("--no-bf16", action="store_true", help="float32 throughout")


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    from medssl.pretrain.finetune_recipe import LORA, PEAKS

    parser = argparse.ArgumentParser(
        prog="medssl finetune", description=__doc__, parents=[options.of_data(), options.of_run()]
    )
    parser.add_argument("--task", required=True, help="the task's name: lung, brain, leukaemia, eye, or your own")
    parser.add_argument("--backbone", required=True, help="a registry name, a Hub id or a folder to start from")
    parser.add_argument("--backbone-revision", metavar="REV", help="the backbone's revision on the Hub (default: main)")
    parser.add_argument("--out", required=True, help="the backbone folder to write")
    parser.add_argument("--mode", choices=PEAKS, default=LORA, help="what is tuned (default: %(default)s)")
    parser.add_argument(
        "--pooling",
        default="auto",
        help="cls, mean or cls+mean (default: auto, which of them validation chooses on the frozen encoder)",
    )
    parser.add_argument("--fit", choices=("squash", "pad"), help="how an image fills the frame (default: squash)")
    parser.add_argument(
        "--input-size", "--size", type=int, dest="size", help="input side in pixels (default: the backbone's)"
    )
    parser.add_argument(
        "--others", nargs="*", default=[], metavar="DIR", help="images of other tasks, to see how many look unfamiliar"
    )
    parser.add_argument("--license", "--licence", default="unknown", help="of the tuned weights, for their card")
    add_recipe(parser)
    return options.parsed(parser, given)


def recipe_of(arguments: argparse.Namespace, mode: str) -> FineTuneRecipe:
    """What the arguments of `add_recipe` ask for."""
    from medssl.pretrain.finetune_recipe import FineTuneRecipe

    return FineTuneRecipe(
        mode=mode,
        epochs=arguments.epochs,
        patience=arguments.patience,
        batch_size=arguments.batch_size,
        accumulate=arguments.accumulate,
        learning_rate=arguments.learning_rate,
        layer_decay=arguments.layer_decay,
        blocks=arguments.blocks,
        rank=arguments.rank,
        views=arguments.views,
        bf16=not arguments.no_bf16,
        seed=arguments.seed,
    )


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, tune, and print the verdict; the same command goes on where it was stopped."""
    arguments = parse(given)

    from medssl.backbones.backbone import shared_backbone
    from medssl.pretrain.finetune import finetune
    from medssl.pretrain.finetune_guard import describe_verdict, effect_lines
    from medssl.pretrain.finetune_run import TuningReports

    backbone = shared_backbone(arguments.backbone, arguments.backbone_revision)
    tuned = finetune(
        arguments.data,
        arguments.task,
        backbone,
        arguments.out,
        recipe_of(arguments, arguments.mode),
        labels=arguments.labels,
        pooling=arguments.pooling,
        preprocess=options.preprocess_of(arguments, backbone.preprocess),
        data_revision=arguments.data_revision,
        others=named_folders(arguments.others, "--others"),
        license=arguments.license,
        reports=TuningReports(progress=not arguments.quiet),
    )
    facts = tuned.facts
    print(describe_verdict(tuned.verdict))
    print("\n".join(effect_lines(tuned.verdict)))
    for name in tuned.skipped:
        print(f"Left out, since it cannot be read: {printable(name)}")
    if not tuned.better:
        print("The frozen encoder is the better choice until more labels or another recipe say otherwise.")
    print(
        f"Written to {printable(str(tuned.folder))}: epoch {facts['best_epoch']} of {facts['epochs_run']}, "
        f"{facts['seconds']:.0f} s."
    )
    if tuned.stopped:
        print("Stopped: the best so far is saved. The same command goes on from here.")
        return INTERRUPTED
    return 0
