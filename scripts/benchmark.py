"""Measure speed: `embed`, `search`, `start`, `explain`, `visitors`; where heatmaps point, how faithful they are."""

from __future__ import annotations

import argparse
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import _cli

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))

import embedding_speed  # noqa: E402
import faithfulness  # noqa: E402
import heatmap_speed  # noqa: E402
import machine  # noqa: E402
import pointing  # noqa: E402
import regions  # noqa: E402
import search_speed  # noqa: E402
import start  # noqa: E402
import variants  # noqa: E402
import visitors  # noqa: E402
from marks import put_between  # noqa: E402

BENCHMARKS = {
    "embed": embedding_speed,
    "search": search_speed,
    "start": start,
    "explain": heatmap_speed,
    "visitors": visitors,
    "pointing": pointing,
    "regions": regions,
    "faithfulness": faithfulness,
    "variants": variants,
}


class Copied(io.StringIO):
    """Text that is shown at once and held too."""

    def write(self, text: str) -> int:
        """Show and hold."""
        sys.__stdout__.write(text)
        sys.__stdout__.flush()
        return super().write(text)


def main() -> int:
    """Run one benchmark, print its table, and write it and its figures, with the machine's, where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, module in BENCHMARKS.items():
        verb = verbs.add_parser(name, help=module.__doc__, description=module.__doc__)
        module.add_arguments(verb)
        verb.add_argument("--out", help="where to write the figures as JSON")
        verb.add_argument("--page", help="a page to put the table into, between its markers of this topic")
    arguments = parser.parse_args()
    measured_on = machine.describe()  # before the run, whose own work is no load of others
    with redirect_stdout(Copied()) as shown:
        figures = BENCHMARKS[arguments.verb].run(arguments)
    if arguments.out:
        text = json.dumps({**figures, "machine": measured_on}, indent=2)
        Path(arguments.out).write_text(text + "\n", "utf-8")
    if arguments.page:
        begin, end = (f"<!-- {arguments.verb}: {mark} -->" for mark in ("begin", "end"))
        put_between(Path(arguments.page), begin, end, f"{machine.line(measured_on)}.\n\n{shown.getvalue().strip()}")
    return 0


if __name__ == "__main__":
    _cli.run(main)
