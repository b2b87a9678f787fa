"""Compare backbones on the same tasks and splits: heads, label efficiency, retrieval, leakage; with one report.

The backbones are named one by one (--backbones) or as a group (--group). A study that was stopped goes on where it
was when it is started again with the same --out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from medssl.cli import options
from medssl.cli.run import named_folders

PARTS = "parts"


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="medssl study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[options.of_run(), options.of_cache()],
    )
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="[NAME=]DIR", help="image folders or Hub data sets, one a task"
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--backbones",
        nargs="+",
        metavar="[LABEL=]NAME",
        help="registry names, Hub ids or folders; LABEL=random:NAME is the same architecture, untrained",
    )
    who.add_argument("--group", metavar="GROUP", help="paper, dinov2-sizes or offline: see medssl/study/kinds.py")
    parser.add_argument(
        "--folder",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=DIR",
        help="where a member of the group lies (or which Hub id it is)",
    )
    parser.add_argument(
        "--without", nargs="+", action="extend", default=[], metavar="NAME", help="members of the group to leave out"
    )
    parser.add_argument(
        "--against", nargs="+", action="extend", default=[], metavar="LABEL", help="compare all others with this one"
    )
    parser.add_argument(
        "--kind",
        nargs="+",
        action="extend",
        default=[],
        metavar="LABEL=KIND",
        help="how a backbone was trained, where its name does not tell: self-supervised or supervised",
    )
    parser.add_argument(
        "--pooling",
        help="what embeddings are made of, as of build: cls, mean, cls+mean, cls-last4 ... (default: the group's, or "
        "cls where there is one)",
    )
    parser.add_argument("--draws", type=int, default=5, help="random draws of few labels and of images (default: 5)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default: 1000)")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the report is written")
    return options.parsed(parser, given)


def choose(arguments: argparse.Namespace) -> tuple[dict[str, str], dict[str, str], str | None]:
    """Backbones by name, their kinds where known, and the pooling. Raises BackboneError, DataError."""
    from medssl.errors import BackboneError
    from medssl.study.kinds import GROUPS, choose_group

    kinds = named_folders(arguments.kind, "--kind")
    if arguments.backbones:
        if arguments.folder or arguments.without:
            raise BackboneError("--folder and --without are for a --group. Put the folder into --backbones NAME=DIR.")
        return named_folders(arguments.backbones, "--backbones"), kinds, arguments.pooling
    backbones, known = choose_group(arguments.group, named_folders(arguments.folder, "--folder"), arguments.without)
    return backbones, {**known, **kinds}, arguments.pooling or GROUPS[arguments.group].pooling


def main(given: Sequence[str] | None = None) -> int:
    """Parse the arguments, compare, print the answer and the tables, and write the report."""
    arguments = parse(given)

    from medssl.errors import DataError
    from medssl.study.report.answer import answer
    from medssl.study.report.folder import write_report
    from medssl.study.report.tables import printed
    from medssl.study.study import compare

    started = time.perf_counter()
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out} is a file. Give a folder, new or old.")
    backbones, kinds, pooling = choose(arguments)
    study = compare(
        backbones,
        named_folders(arguments.data, "--data"),
        against=list(dict.fromkeys(arguments.against)),
        pooling=pooling,
        seed=arguments.seed,
        n_bootstrap=arguments.resamples,
        cache_dir=arguments.cache,
        progress=not arguments.quiet,
        kinds=kinds,
        draws=arguments.draws,
        parts=out / PARTS,
    )
    write_report(study, out)
    print("\n".join(answer(study)))
    print(f"\n{printed(study)}")
    print(f"\nWritten to {out} in {time.perf_counter() - started:.1f} s.")
    return 0
