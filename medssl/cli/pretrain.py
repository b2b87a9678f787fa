"""Pretrain or adapt an encoder on unlabelled images; `accelerate launch` or `torchrun` for several processes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medssl.cli import options
from medssl.cli.run import named_folders

if TYPE_CHECKING:
    from medssl.pretrain.recipe import Recipe


def option(text: str) -> tuple[str, float | int | str]:
    """NAME=VALUE, the value as a number where it is one."""
    name, _, value = text.partition("=")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    from medssl.pretrain.encoder import ARCHITECTURES
    from medssl.pretrain.export import DTYPES
    from medssl.pretrain.recipe import BATCHES, METHODS, Recipe
    from medssl.pretrain.views import POLICIES

    parser = argparse.ArgumentParser(prog="medssl pretrain", description=__doc__, parents=[options.of_run()])
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR|NAME=DIR", help="folders of images")
    parser.add_argument("--out", required=True, help="the backbone folder to write")
    parser.add_argument("--method", choices=METHODS, default="dino")
    parser.add_argument("--architecture", choices=ARCHITECTURES, help="start from nothing (default: medssl-tiny)")
    parser.add_argument("--init", help="go on from a checkpoint: a registry name, a Hub id or a folder")
    parser.add_argument("--teacher", help="what distill learns from: a registry name, a Hub id or a folder")
    parser.add_argument(
        "--views", choices=POLICIES, help="one kind of views for all data (default: by the data's name)"
    )
    parser.add_argument("--epochs", type=float, default=Recipe.epochs, help="passes over the images")
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size, help="images, over all processes")
    parser.add_argument("--batches", choices=BATCHES, default=Recipe.batches, help="of all tasks, or of one each")
    parser.add_argument("--size", type=int, default=Recipe.size, help="side of the large views in pixels")
    parser.add_argument("--small-size", type=int, default=Recipe.small_size, help="side of the small views in pixels")
    parser.add_argument("--stored-size", type=int, default=Recipe.stored_size, help="side that images are kept at")
    parser.add_argument("--learning-rate", type=float, help="peak (default 1e-3; 1e-4 with --init)")
    parser.add_argument("--warmup", type=float, default=Recipe.warmup, help="share of the run")
    parser.add_argument("--no-bf16", action="store_true", help="float32 throughout")
    parser.add_argument("--option", nargs="*", type=option, default=[], metavar="NAME=VALUE", help="of the method")
    parser.add_argument("--watch", nargs="*", default=[], metavar="DIR|NAME=DIR", help="labelled data for a kNN score")
    parser.add_argument("--watch-every", type=int, default=500, help="steps between kNN scores")
    parser.add_argument("--log-every", type=int, default=20, help="steps between rows of run/log.csv")
    parser.add_argument("--checkpoint-every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--export-dtype", choices=DTYPES, default="float32", help="of the saved weights")
    parser.add_argument("--input-size", type=int, help="side that the saved encoder asks for (default: --size)")
    return options.parsed(parser, given)


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """What the arguments ask for."""
    from medssl.pretrain.recipe import METHODS, Recipe

    defaults = METHODS[arguments.method].defaults
    chosen = {name: str(value) if isinstance(defaults.get(name), str) else value for name, value in arguments.option}
    return Recipe(
        method=arguments.method,
        architecture=None if arguments.init else arguments.architecture or Recipe.architecture,
        init=arguments.init,
        teacher=arguments.teacher,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        batches=arguments.batches,
        size=arguments.size,
        small_size=arguments.small_size,
        stored_size=arguments.stored_size,
        views=arguments.views,
        learning_rate=arguments.learning_rate or (1e-4 if arguments.init else Recipe.learning_rate),
        warmup=arguments.warmup,
        bf16=not arguments.no_bf16,
        seed=arguments.seed,
        options=chosen,
    )


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments and run; a second start of the same command goes on where the first one stopped."""
    from medssl.pretrain.chronicle import Reports
    from medssl.pretrain.export import Export
    from medssl.pretrain.runner import pretrain

    arguments = parse(given)
    reports = Reports(
        arguments.log_every, arguments.checkpoint_every, arguments.watch_every, progress=not arguments.quiet
    )
    watch, export = named_folders(arguments.watch, "--watch"), Export(arguments.export_dtype, arguments.input_size)
    try:
        out = pretrain(
            recipe_of(arguments), named_folders(arguments.data, "--data"), arguments.out, watch, reports, export
        )
    except KeyboardInterrupt:
        print("Stopped and saved. The same command goes on from here.")
        raise
    print(f"Written to {out}: {json.loads((out / 'pretraining.json').read_text('utf-8'))['seconds']:.0f} s.")
    return 0
