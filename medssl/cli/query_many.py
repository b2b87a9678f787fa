"""Files that are asked about in one call: a row a picture, and one answer for a patient, or for each series."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from medssl.cli.kept_reports import keep_files


def ask_many(
    client: Any,  # noqa: ANN401
    files: Sequence[Path],
    options: argparse.Namespace,
    patiently: Callable[[Callable[[], Any]], Any],
    out: TextIO,
) -> int:
    """Send all files in one call, write the answer, keep its report. Returns how many pictures could not be read.

    A table holds the rows; JSON holds all, the answers first. Raises what the client raises.
    """
    from gradio_client import handle_file

    from medssl.bundle.group import series_title
    from medssl.bundle.many import write_table

    sent = [handle_file(str(file)) for file in files]
    together = options.series or options.group is not None
    asked = {"images": sent, "task": options.task, **({"group_id": options.group or ""} if together else {})}
    if options.report:
        made = patiently(lambda: client.predict(**asked, together=together, api_name="/report_many"))
        answer = {**made["answer"], "report": keep_files(made, options.report)}
    else:
        endpoint = "/analyze_group" if together else "/analyze_many"
        answer = patiently(lambda: client.predict(**asked, api_name=endpoint))
    for note in answer["notes"]:
        print(note, file=sys.stderr)
    if options.format == "csv":
        write_table(answer["rows"], out)
    else:
        print(json.dumps(answer, ensure_ascii=False), file=out)
    answers = answer.get("answers", [])
    for one in answers:
        found, title = one["prediction"], "together" if len(answers) == 1 else series_title(one["series"])
        print(f"{title[:1].upper() + title[1:]}: {found['label']}, {found['probability']:.3f}.", file=sys.stderr)
    return sum(bool(row["error"]) for row in answer["rows"])
