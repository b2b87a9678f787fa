"""Compare backbones on the same tasks and splits: linear, kNN and centroid heads and retrieval, with intervals."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import _cli


def named(values: list[str], option: str) -> dict[str, str]:
    """NAME=PLACE or PLACE arguments as a dict. Raises DataError where two have one name."""
    from medssl.errors import DataError

    found = _cli.named_folders(values)
    if len(found) != len(values) or "" in found:
        raise DataError(f"{option} {' '.join(values)} needs a different name for each. Write NAME=PLACE.")
    return found


def main() -> int:
    """Parse the arguments, compare, print the tables and write results.parquet and report.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="[NAME=]DIR", help="image folders or Hub data sets, one a task"
    )
    parser.add_argument(
        "--backbones",
        nargs="+",
        required=True,
        metavar="[LABEL=]NAME",
        help="registry names, Hub ids or folders; LABEL=random:NAME is the same architecture, untrained",
    )
    parser.add_argument(
        "--against", nargs="+", action="extend", default=[], metavar="LABEL", help="compare all others with this one"
    )
    parser.add_argument("--pooling", help="cls, mean or cls+mean (default: cls where there is one, else mean)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default: 1000)")
    parser.add_argument("--cache", help="where embeddings are cached (default: MEDSSL_CACHE or ~/.cache/medssl)")
    parser.add_argument("--seed", type=int, default=0, help="of splits, resamples and untrained weights (default: 0)")
    parser.add_argument("--out", required=True, metavar="DIR", help="where results.parquet and report.md are written")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    arguments = parser.parse_args()

    from medssl.errors import DataError
    from medssl.study import compare

    started = time.perf_counter()
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out} is a file. Give a folder, new or old.")
    study = compare(
        named(arguments.backbones, "--backbones"),
        named(arguments.data, "--data"),
        against=list(dict.fromkeys(arguments.against)),
        pooling=arguments.pooling,
        seed=arguments.seed,
        n_bootstrap=arguments.resamples,
        cache_dir=arguments.cache,
        progress=not arguments.quiet,
    )
    study.save(out)
    print(study.table())
    if study.differences():
        print(f"\nPaired differences\n\n{study.differences()}")
    print(f"\nWritten to {out} in {time.perf_counter() - started:.1f} s.")
    return 0


if __name__ == "__main__":
    _cli.run(main)
