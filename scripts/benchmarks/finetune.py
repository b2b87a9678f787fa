"""Frozen, adapted and last-blocks encoders on several tasks: one cell after the other, kept, then a table.

Each cell is a build in a process of its own, so that its peak memory is its own; epochs are chosen on validation, the
test split is measured once. A run that was stopped goes on with the cells that are missing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from marks import put_between

from medssl.bundle.build import BuildOptions, build_bundle
from medssl.bundle.finetuned import TuningPlan, build_finetuned
from medssl.errors import MedSSLError
from medssl.files import written_whole
from medssl.metrics.metric import figure_text
from medssl.pretrain.finetune_guard import GAP
from medssl.pretrain.finetune_recipe import LAST_BLOCKS, LORA, FineTuneRecipe

FROZEN = "frozen"
READINGS = (FROZEN, LORA, LAST_BLOCKS)
SHOWN = {"accuracy": "accuracy", "auroc": "AUROC", "ece": "ECE", "precision_at_1": "P@1"}
BEGIN, END = "<!-- Written by scripts/benchmarks/finetune.py: begin -->", "<!-- end -->"
NOT_RUN = "not run"


def cell_file(out: Path, data: Path, encoder: Path, reading: str) -> Path:
    """Where the figures of one cell are kept."""
    return out / data.name / encoder.name / reading / "cell.json"


def measure_cell(file: Path, data: Path, encoder: Path, reading: str, epochs: int) -> None:
    """Build, and keep the test figures, the verdict of validation, minutes and peak memory."""
    file.parent.mkdir(parents=True, exist_ok=True)
    started, place = time.perf_counter(), file.parent
    options = BuildOptions(head="linear", explainer_seconds=0, localizer=False, cache_dir=place / "cache")
    if reading == FROZEN:
        bundle = build_bundle(data, data.name, encoder, None, options)
    else:
        plan = TuningPlan(place / "backbone", FineTuneRecipe(mode=reading, epochs=epochs), anyway=True)
        bundle = build_finetuned(data, data.name, encoder, None, plan, options)
    metrics = bundle.metrics
    figures = {**metrics["classification"], **metrics["retrieval"]}
    facts = {
        "figures": {name: figures[name] for name in SHOWN},
        "verdict": metrics["finetune"]["verdict"] if "finetune" in metrics else None,
        "epochs": epochs if reading != FROZEN else 0,
        "minutes": (time.perf_counter() - started) / 60,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    with written_whole(file) as beside:
        beside.write_text(json.dumps(facts, indent=1), "utf-8")


def row(file: Path, data: Path, encoder: Path, reading: str) -> str:
    """A cell as a row of the table."""
    start = f"| {data.name} | {encoder.name} | {reading} |"
    if not file.is_file():
        return f"{start} {' | '.join([NOT_RUN, *['-'] * (len(SHOWN) + 3)])} |"
    facts = json.loads(file.read_text("utf-8"))
    figures = [figure_text(facts["figures"][name]) for name in SHOWN]
    gap = figure_text(facts["verdict"][GAP], signed=True) if facts["verdict"] else "-"
    cells = [str(facts["epochs"]), *figures, gap, f"{facts['minutes']:.1f}", f"{facts['peak_gib']:.1f}"]
    return f"{start} {' | '.join(cells)} |"


def write_table(page: Path, rows: list[str]) -> None:
    """Put the table between its markers in a page. Raises DataError where they are missing."""
    columns = ["task", "encoder", "reading", "epochs at most", *SHOWN.values()]
    columns += ["validation: tuned less frozen", "minutes", "peak GiB"]
    header = f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"
    put_between(page, BEGIN, END, "\n".join([header, *rows]))


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="folders named by their task")
    parser.add_argument("--encoders", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--readings", nargs="+", choices=READINGS, default=list(READINGS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True, help="where cells are kept")
    parser.add_argument("--page", type=Path, help="the page that takes the table")
    parser.add_argument("--table", action="store_true", help="only write the table of the cells that there are")
    parser.add_argument("--cell", action="store_true", help="measure the one cell that is named, in this process")
    return parser.parse_args()


def main() -> int:
    """Measure the missing cells, then write the table."""
    arguments = parse()
    cells = [(d, e, r) for d in arguments.data for e in arguments.encoders for r in arguments.readings]
    files = [cell_file(arguments.out, *cell) for cell in cells]
    if arguments.cell:
        measure_cell(files[0], *cells[0], arguments.epochs)
        return 0
    for file, (data, encoder, reading) in zip(files, cells, strict=True):
        if not file.is_file() and not arguments.table:
            given = ["--data", data, "--encoders", encoder, "--readings", reading, "--epochs", arguments.epochs]
            command = [sys.executable, __file__, *given, "--out", arguments.out, "--cell"]
            subprocess.run([str(part) for part in command], check=True)
    if arguments.page:
        write_table(arguments.page, [row(file, *cell) for file, cell in zip(files, cells, strict=True)])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (MedSSLError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
