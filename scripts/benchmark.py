"""Measure: speed of `embed`, `search`, `start`, `explain`; where heatmaps point, and whether they are faithful."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import _cli
import benchmark_embed
import benchmark_explain
import benchmark_faithfulness
import benchmark_pointing
import benchmark_search
import benchmark_start
import benchmark_variants

BENCHMARKS = {
    "embed": benchmark_embed,
    "search": benchmark_search,
    "start": benchmark_start,
    "explain": benchmark_explain,
    "pointing": benchmark_pointing,
    "faithfulness": benchmark_faithfulness,
    "variants": benchmark_variants,
}


def main() -> int:
    """Run one benchmark, print its table, and write its figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, module in BENCHMARKS.items():
        verb = verbs.add_parser(name, help=module.__doc__, description=module.__doc__)
        module.add_arguments(verb)
        verb.add_argument("--out", help="where to write the figures as JSON")
    arguments = parser.parse_args()
    figures = BENCHMARKS[arguments.verb].run(arguments)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    _cli.run(main)
