"""Options that mean one thing in every verb, worded once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medssl.images.preprocess import Preprocess


def labels(text: str) -> list[str]:
    """Comma-separated labels as a list. Raises argparse.ArgumentTypeError for empty or repeated ones."""
    names = [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} holds an empty or a repeated label; write them as a,b,c")
    return names


class Renamed(argparse.Action):
    """An option that meant different things in different verbs: refused, with the names it has now."""

    def __call__(self, parser: argparse.ArgumentParser, *_given: object) -> None:
        """Leave with a sentence."""
        parser.error(
            f"{self.option_strings[0]} meant the data's revision in one verb and the backbone's in another. Write "
            "--data-revision or --backbone-revision."
        )


def of_source() -> argparse.ArgumentParser:
    """--data, as a parent parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--data", required=True, metavar="DIR|HUB_ID", help="an image folder or a Hub data set")
    return parser


def of_data() -> argparse.ArgumentParser:
    """--data, --data-revision and --labels, as a parent parser."""
    parser = argparse.ArgumentParser(add_help=False, parents=[of_source()])
    parser.add_argument("--data-revision", metavar="REV", help="the Hub data set's branch, tag or commit")
    parser.add_argument("--revision", action=Renamed, help=argparse.SUPPRESS)
    parser.add_argument(
        "--labels", type=labels, metavar="A,B,C", help="the labels in their order (default: the task's, else sorted)"
    )
    return parser


def of_run() -> argparse.ArgumentParser:
    """--seed and --quiet, as a parent parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no notes of libraries")
    return parser


def of_cache() -> argparse.ArgumentParser:
    """--cache, as a parent parser."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--cache", metavar="DIR", help="where embeddings are kept (default: MEDSSL_CACHE or ~/.cache/medssl)"
    )
    return parser


def of_frame() -> argparse.ArgumentParser:
    """--fit and --input-size, as a parent parser; see `preprocess_of`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--fit", choices=("squash", "pad"), help="how an image fills the frame (default: squash)")
    parser.add_argument(
        "--input-size", "--size", type=int, dest="size", help="input side in pixels (default: the backbone's)"
    )
    return parser


def parsed(parser: argparse.ArgumentParser, given: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; with --quiet the libraries are quiet from here on."""
    arguments = parser.parse_args(given)
    if arguments.quiet:
        silence_libraries()
    return arguments


def preprocess_of(arguments: argparse.Namespace, default: Preprocess) -> Preprocess | None:
    """How images enter by --fit and --input-size; None where neither was given."""
    size = {"size": (arguments.size, arguments.size)} if arguments.size else {}
    fit = {"fit": arguments.fit} if arguments.fit else {}
    return replace(default, **size, **fit) if size or fit else None


def silence_libraries() -> None:
    """No bars of datasets (its parquet writer), the Hub's client and transformers, and no warnings of the last."""
    # Read when they are imported, here or by a child process.
    os.environ.update(HF_DATASETS_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    import datasets
    import huggingface_hub.utils
    from transformers.utils import logging

    datasets.disable_progress_bars()
    huggingface_hub.utils.disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def check_file(out: str | None) -> None:
    """Raises DataError where --out is given and no file can be written there."""
    from medssl.errors import DataError

    if out and (Path(out).is_dir() or not Path(out).resolve().parent.is_dir()):
        raise DataError(f"--out {out} is no file in a folder that exists. Make the folder or choose another.")
