"""Send images to a running medssl app and print its answers, one line an image."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from medssl.cli.kept_reports import keep_files
from medssl.cli.query_many import ask_many
from medssl.text import spreadsheet_cell

NOT_IMAGES = {".csv", ".json", ".jsonl", ".md", ".txt", ".parquet", ".py"}
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two questions to a full queue
CURVES = ("deletion", "insertion", "insertion_minus_deletion")
COLUMNS = (
    "file",
    "task",
    "label",
    "probability",
    "prediction_set",
    "familiarity",
    "familiar",
    "probabilities",
    "target",
    "evidence",
    "case_ids",
    "case_labels",
    "case_scores",
    "error",
    "explained_by",
    "method",
    *CURVES,
    "beats_random",
    "report",
    "lesion_probability",
    "lesion_box",
)


class CannotRunError(Exception):
    """Nothing can be asked at all: no server, no images, an unknown task."""


def find_images(paths: Iterable[str]) -> list[Path]:
    """The files given, and every file below the folders given except text and tables."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = (file for file in sorted(path.rglob("*")) if file.is_file())
            found += [file for file in inside if file.suffix.lower() not in NOT_IMAGES and file.name[0] != "."]
        elif path.is_file():
            found.append(path)
        else:
            raise CannotRunError(f"There is no file or folder {str(path)!r}.")
    if not found:
        raise CannotRunError("There is no image in what was given.")
    return found


def connect(url: str, downloads: str) -> Any:  # noqa: ANN401
    """A client of the app at that address or of that Space. Raises CannotRunError when no medssl app answers."""
    import httpx
    from gradio_client import Client

    # Only heatmaps are worth downloading; without --explain the files stay on the server.
    try:
        client = Client(url, verbose=False, download_files=downloads or False)
        endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        next_step = "Start one with: python app.py, or give a Space as NS/NAME (a private one needs HF_TOKEN)."
        raise CannotRunError(f"No medssl app answers at {url}: {reason}. {next_step}") from error
    if "/analyze" not in endpoints or "/tasks" not in endpoints:
        raise CannotRunError(f"What answers at {url} is no medssl app.")
    return client


def patiently(call: Callable[[], Any], wait: float) -> Any:  # noqa: ANN401
    """The call's result, asked for again while the app's queue is full, for at most `wait` seconds.

    Raises QueueError when it still is.
    """
    from gradio_client.utils import QueueError

    end, pause = time.monotonic() + wait, FIRST_PAUSE
    while True:
        try:
            return call()
        except QueueError:
            left = end - time.monotonic()
            if left <= 0:
                raise
            pause = min(pause, left)
            print(f"The app's queue is full; asking again in {pause:.0f} s.", file=sys.stderr, flush=True)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def check_question(client: Any, options: argparse.Namespace) -> None:  # noqa: ANN401
    """Raises CannotRunError when the task or the class to explain is not one of the app's."""
    from gradio_client.utils import QueueError

    try:
        listed = patiently(lambda: client.predict(api_name="/tasks"), options.wait)
    except QueueError as error:
        raise CannotRunError(busy(options.wait)) from error
    tasks = {task["name"]: task["labels"] for task in listed}
    if not tasks:
        raise CannotRunError(f"The app at {options.url} has no bundle loaded.")
    if options.task and options.task not in tasks:
        raise CannotRunError(f"The app has no task {options.task!r}. It has: {', '.join(tasks)}.")
    labels = tasks[options.task] if options.task else sorted({label for each in tasks.values() for label in each})
    known = {"auto"} | {method for task in listed for method in task["explainers"]}
    if options.method not in known:
        raise CannotRunError(f"There is no explainer {options.method!r}. Allowed: {', '.join(sorted(known))}.")
    if options.target and options.target not in labels:
        raise CannotRunError(f"There is no class {options.target!r}. Allowed: {', '.join(labels)}.")


def busy(wait: float) -> str:
    """What is said when the queue stayed full."""
    return f"The app's queue was full for {wait:.0f} s. Try again later, or wait longer (--wait)."


def copy_pictures(found: dict, prefix: str, folder: Path) -> None:
    """Copy heatmap and overlay into the folder, under names that begin so, and say where they lie now."""
    for kind in ("heatmap", "overlay"):
        place = folder / f"{prefix}{kind}.png"
        shutil.copyfile(found[kind], place)
        found[kind] = str(place)


def ask_lesion_map(client: Any, file: Path, task: str, options: argparse.Namespace) -> dict | None:  # noqa: ANN401
    """The lesion map of a file; None where its task has no localizer."""
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    try:
        asked = {"task": task, "api_name": "/lesion_map"}
        return patiently(lambda: client.predict(handle_file(str(file)), **asked), options.wait)
    except AppError as error:
        if "no localizer" in str(error):
            return None
        raise


def similar_regions(client: Any, file: Path, task: str, options: argparse.Namespace) -> dict:  # noqa: ANN401
    """The cases with a region like the box asked for, without their pictures."""
    from gradio_client import handle_file

    asked = {"box": options.box, "task": task, "top_k": options.top_k, "api_name": "/similar_regions"}
    found = patiently(lambda: client.predict(handle_file(str(file)), **asked), options.wait)
    for case in found["cases"]:
        case.pop("thumbnail"), case.pop("outlined")
    return {"box": found["box"], "cases": found["cases"]}


def ask(client: Any, file: Path, number: int, options: argparse.Namespace) -> dict:  # noqa: ANN401
    """The app's answer for one file, or {"error": sentence}."""
    import httpx
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError
    from gradio_client.utils import QueueError

    try:
        result = patiently(
            lambda: client.predict(
                handle_file(str(file)),
                task=options.task,
                target=options.target,
                top_k=options.top_k,
                explain=bool(options.explain),
                method=options.method,
                verify=options.verify,
                api_name="/analyze",
            ),
            options.wait,
        )
        if result["explanation"]:
            copy_pictures(result["explanation"], f"{number:04d}-{file.stem}.", Path(options.explain))
        found = result.pop("lesion_map", None)
        if options.report:
            result["report"] = keep_report(client, file, number, options)
        if options.lesion_map:
            found = found or ask_lesion_map(client, file, result["task"], options)
            if found:
                copy_pictures(found, f"{number:04d}-{file.stem}.lesion-", Path(options.lesion_map))
            result["lesion_map"] = found
        if options.box:
            result["similar_regions"] = similar_regions(client, file, result["task"], options)
    except AppError as error:
        return {"file": str(file), "error": str(error)}
    except QueueError:
        return {"file": str(file), "error": busy(options.wait)}
    except (httpx.HTTPError, OSError, ValueError) as error:
        return {"file": str(file), "error": f"The app did not answer: {str(error) or type(error).__name__}"}
    for case in result["cases"]:
        case.pop("thumbnail", None)
    return {"file": str(file), **result}


def keep_report(client: Any, file: Path, number: int, options: argparse.Namespace) -> list[str]:  # noqa: ANN401
    """Ask for one file's report and copy its files into the folder. Returns their places."""
    from gradio_client import handle_file

    made = patiently(
        lambda: client.predict(
            handle_file(str(file)),
            task=options.task,
            target=options.target,
            method=options.method,
            api_name="/report",
        ),
        options.wait,
    )
    return keep_files(made, options.report, f"{number:04d}-{file.stem}.")


def as_row(answer: dict) -> dict:
    """One answer as a flat line of the CSV table."""
    prediction, explanation = answer.get("prediction") or {}, answer.get("explanation") or {}
    cases, verification = answer.get("cases") or [], answer.get("verification") or {}
    lesion = answer.get("lesion_map") or {}
    figures = {name: verification[name] for name in CURVES if name in verification}
    return {
        **{key: answer.get(key, "") for key in ("file", "task", "error")},
        **{key: prediction.get(key, "") for key in ("label", "probability", "familiarity", "familiar")},
        **{key: explanation.get(key, "") for key in ("target", "evidence", "method")},
        "explained_by": answer.get("explained_by", ""),
        **{name: figure["value"] for name, figure in figures.items()},
        "beats_random": figures[CURVES[-1]]["beats"] if figures else "",
        "lesion_probability": lesion.get("probability", ""),
        "lesion_box": " ".join(f"{value:.4f}" for value in lesion.get("box", [])),
        "prediction_set": " ".join(prediction.get("prediction_set", [])),
        "probabilities": json.dumps(prediction["probabilities"], ensure_ascii=False) if prediction else "",
        "case_ids": " ".join(case["id"] for case in cases),
        "case_labels": " ".join(case["label"] for case in cases),
        "case_scores": " ".join(str(case["score"]) for case in cases),
        "report": " ".join(answer.get("report", [])),
    }


def write(answers: Iterator[dict], form: str, out: TextIO) -> int:
    """Write answers as they come. Returns how many are errors."""
    table = csv.DictWriter(out, COLUMNS) if form == "csv" else None
    if table:
        table.writeheader()
    failed = 0
    for answer in answers:
        failed += "error" in answer
        if table:
            table.writerow({name: spreadsheet_cell(value) for name, value in as_row(answer).items()})
        else:
            print(json.dumps(answer, ensure_ascii=False), file=out)
        out.flush()
    return failed


def run(options: argparse.Namespace) -> int:
    """Ask for every image; returns how many failed."""
    files = find_images(options.image)
    folders = [folder for folder in (options.explain, options.lesion_map, options.report) if folder]
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        client = connect(options.url, downloads if folders else "")
        check_question(client, options)

        def answers() -> Iterator[dict]:
            for number, file in enumerate(files, 1):
                answer = ask(client, file, number, options)
                said = answer.get("error") or f"{answer['task']}: {answer['prediction']['label']}"
                print(f"[{number}/{len(files)}] {file}: {said}", file=sys.stderr, flush=True)
                yield answer

        place = open(options.out, "w", encoding="utf-8", newline="") if options.out else nullcontext(sys.stdout)
        with place as out:
            if in_one_call(options):
                return all_at_once(client, files, options, out)
            return write(answers(), options.format, out)


def in_one_call(options: argparse.Namespace) -> bool:
    """Whether all files are sent in one call."""
    return options.together or options.series or options.group is not None


def all_at_once(client: Any, files: Sequence[Path], options: argparse.Namespace, out: TextIO) -> int:  # noqa: ANN401
    """One call for all files. Returns how many pictures could not be read. Raises CannotRunError."""
    import httpx
    from gradio_client.exceptions import AppError
    from gradio_client.utils import QueueError

    try:
        return ask_many(client, files, options, partial(patiently, wait=options.wait), out)
    except (AppError, QueueError, httpx.HTTPError) as error:
        raise CannotRunError(busy(options.wait) if isinstance(error, QueueError) else str(error)) from error


def query_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="medssl query", description="Send images to a running medssl app and print its answers."
    )
    parser.add_argument("image", nargs="+", metavar="IMAGE|FOLDER", help="image files, or folders of them")
    parser.add_argument(
        "--url",
        default="http://127.0.0.1:7860",
        metavar="URL|NS/NAME",
        help="address of the app, or name of a Space; HF_TOKEN opens a private one (default %(default)s)",
    )
    parser.add_argument("--task", default="", help="task name (default: the one each image resembles most)")
    parser.add_argument("--target", default="", help="class to explain (default: the predicted one)")
    parser.add_argument("--top-k", type=int, default=6, help="similar cases an image, 1 to 50 (default %(default)s)")
    parser.add_argument("--explain", metavar="DIR", help="also compute heatmaps and put them, with overlays, here")
    parser.add_argument(
        "--report", metavar="DIR", help="also make a report of each image and put it here, as HTML and JSON"
    )
    parser.add_argument(
        "--together", action="store_true", help="send all files in one call: a row a picture, no heatmaps, one report"
    )
    parser.add_argument(
        "--series",
        action="store_true",
        help="as --together, with one answer for each series (files of no series together have one more)",
    )
    parser.add_argument(
        "--group", metavar="ID", help="as --together, for the files of one patient or slide: one answer for all"
    )
    parser.add_argument(
        "--lesion-map",
        metavar="DIR",
        help="also ask where a lesion is seen (tasks with a localizer) and put the maps, with overlays, here",
    )
    parser.add_argument(
        "--box",
        default="",
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        help="also find the cases with a region like this one, in fractions (tasks built with --regions; not in CSV)",
    )
    parser.add_argument(
        "--method",
        default="auto",
        help="explainer of the heatmaps; auto (default): the one that each task's bundle was built to show first",
    )
    parser.add_argument(
        "--verify", action="store_true", help="delete and insert each heatmap's pixels (with --explain)"
    )
    parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="output (default %(default)s)")
    parser.add_argument(
        "--wait", type=float, default=300, metavar="SECONDS", help="patience with a full queue (default %(default)s)"
    )
    parser.add_argument("--out", metavar="FILE", help="write here instead of to standard output")
    return parser


def check_one_call(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a sentence where one call for all files is asked for together with what it does not give."""
    if not in_one_call(options):
        return
    if options.explain or options.lesion_map or options.box:
        parser.error("--together, --series and --group give rows and a report; ask for maps and regions without them.")
    unused = [name for name in ("target", "top_k", "method") if getattr(options, name) != parser.get_default(name)]
    if unused:
        said = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        parser.error(f"--together, --series and --group do not use {said}; leave it out, or ask without them.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line. Returns 0, 1 when some images failed, 2 when nothing could be asked."""
    parser = query_parser()
    options = parser.parse_args(arguments)
    if not 1 <= options.top_k <= 50:
        parser.error(f"--top-k is {options.top_k}; allowed are 1 to 50.")
    if not 0 <= options.wait < float("inf"):
        parser.error(f"--wait is {options.wait}; allowed are 0 and more seconds.")
    if options.verify and not options.explain:
        parser.error("--verify needs --explain DIR.")
    if options.series and options.group:
        parser.error("--group ID gives one answer for all, --series one for each series; give one of them.")
    check_one_call(parser, options)
    try:
        failed = run(options)
    except CannotRunError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"Cannot write: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 2
    return 1 if failed else 0
