"""The card of a backbone: its data with licenses, its recipe, its cost, and what it was measured to do."""

from __future__ import annotations

from pathlib import Path

from medssl.data.tasks import NOT_FOR_DIAGNOSIS, TASKS
from medssl.files import written_whole
from medssl.hub.licenses import UNKNOWN, license_fields
from medssl.pretrain.facts import read_runs
from medssl.templates import environment

TEMPLATES = environment("medssl.pretrain", "cards")
RECIPE = (
    *(
        "method",
        "architecture",
        "init",
        "epochs",
        "steps",
        "batch_size",
        "batches",
        "size",
        "small_size",
        "stored_size",
    ),
    *("learning_rate", "warmup", "weight_decay", "clip", "seed", "processes", "views"),
)


def data_line(name: str, count: int) -> str:
    """A data set of a run in words; a name says no more than which of medssl's tasks it may be."""
    task = TASKS.get(name)
    about = "licence: not stated"
    if task:
        about = f"as medssl's task of that name: {task.data}; licence: {task.license}; {task.citation}"
    return f"{name}: {count} images, no labels used ({about})"


def teacher_line(teacher: dict) -> str:
    """The teacher of a distillation in words: its name, its revision and which of its tokens were learnt."""
    tokens = [
        f"{what} of block {', '.join(map(str, teacher[kind]))}"
        for what, kind in (("CLS", "cls_blocks"), ("patch grid", "patch_blocks"))
        if teacher[kind]
    ]
    return f"{teacher['id']} (revision {teacher['revision']}), {' and '.join(tokens) or 'its final map and its mean'}"


def run_lines(facts: dict) -> dict:
    """One run as the template takes it: its data, its recipe, the options of its method and its cost, in words."""
    hardware = facts["hardware"]
    cost = f"{facts['seconds'] / 60:.0f} minutes, {facts['processes']} process(es) on {hardware['name']}"
    return {
        "facts": facts,
        "data": [data_line(name, count) for name, count in facts["images"].items()],
        "recipe": [f"{name} {facts[name]}" for name in RECIPE if facts.get(name) is not None],
        "options": [f"{name} {value}" for name, value in facts["options"].items()],
        "teacher": teacher_line(facts["teacher"]) if facts.get("teacher") else None,
        "cost": f"{cost}, {hardware['threads']} threads, {'bf16' if hardware['bf16'] else 'float32'}",
    }


def plain_backbone_card(name: str, license: str = UNKNOWN) -> str:
    """The card of an encoder of which nothing is known but that it loads by this name, and perhaps its license."""
    return TEMPLATES.get_template("plain.md.jinja").render(
        name=name, title=name.split("/")[-1], license=license_fields(license), not_for_diagnosis=NOT_FOR_DIAGNOSIS
    )


def pretrained_card(folder: Path, name: str, figures: str = "", license: str = UNKNOWN) -> str:
    """The card of a folder that a pretraining run wrote, loaded by `name`; `figures` is Markdown of a study's tables.

    `license` is that of the weights. Raises PretrainError when the folder holds no readable pretraining.json.
    """
    runs = read_runs(folder)
    seen: dict[str, int] = {}
    for run in runs:
        seen |= {data: max(count, seen.get(data, 0)) for data, count in run["images"].items()}
    return TEMPLATES.get_template("pretrained.md.jinja").render(
        name=name,
        title=name.split("/")[-1],
        license=license_fields(license),
        not_for_diagnosis=NOT_FOR_DIAGNOSIS,
        runs=[run_lines(facts) for facts in runs],
        # A start whose own run is not known here is somebody else's checkpoint.
        foreign_start=runs[0].get("init"),
        teachers=sorted({facts["teacher"]["id"] for facts in runs if facts.get("teacher")}),
        figures=figures.strip(),
        seen=seen,
    )


def write_backbone_card(folder: str | Path, name: str, figures: str = "", license: str = UNKNOWN) -> Path:
    """Write `pretrained_card` as README.md into the folder that it describes. Raises PretrainError."""
    folder = Path(folder)
    card = pretrained_card(folder, name, figures, license)
    with written_whole(folder / "README.md") as beside:
        beside.write_text(card + "\n", "utf-8")
    return folder / "README.md"
