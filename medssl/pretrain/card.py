"""The card of a pretrained backbone: its data with licences, its recipe, its cost, and what it was measured to do."""

from __future__ import annotations

import json
from pathlib import Path

from medssl.data.tasks import NOT_FOR_DIAGNOSIS, TASKS
from medssl.errors import PretrainError
from medssl.files import written_whole

FACTS_FILE = "pretraining.json"
SAID = (
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
)
SAID += ("learning_rate", "warmup", "weight_decay", "clip", "seed", "processes", "views")


def data_lines(counts: dict[str, int]) -> list[str]:
    """One Markdown line for each data set of a run."""
    lines = []
    for name, count in counts.items():
        task = TASKS.get(name)
        about = f"{task.data}; licence: {task.licence}; {task.citation}" if task else "licence: not stated"
        lines.append(f"- {name}: {count} images, no labels used ({about})")
    return lines


def stage_text(facts: dict, title: str) -> str:
    """One run of a recipe, in Markdown."""
    settings = [f"{name} {facts[name]}" for name in SAID if facts.get(name) is not None]
    options = ", ".join(f"{name} {value}" for name, value in facts["options"].items())
    hardware = facts["hardware"]
    cost = f"{facts['seconds'] / 60:.0f} minutes, {facts['processes']} process(es) on {hardware['name']}"
    cost += f", {hardware['threads']} threads, {'bf16' if hardware['bf16'] else 'float32'}"
    data = "\n".join(data_lines(facts["images"]))
    return f"### {title}\n\n{data}\n- Recipe: {', '.join(settings)}\n- {facts['method']}: {options}\n- Cost: {cost}"


def plain_backbone_card(repo_id: str) -> str:
    """The card of an encoder of which nothing is known but that it loads."""
    return f"""---
license: unknown
library_name: transformers
pipeline_tag: image-feature-extraction
tags: [medical-imaging, medssl]
---

# {repo_id.split("/")[-1]}

> {NOT_FOR_DIAGNOSIS}

A frozen image encoder for medssl bundles. Load it with `Backbone.from_pretrained("{repo_id}")` of medssl, or
`transformers.AutoModel`. How it was trained, on whose images and under which licence is not stated.
"""


def pretrained_card(folder: Path, name: str, figures: str = "") -> str:
    """The card of a folder that a pretraining run wrote; `figures` is Markdown of a study's tables.

    Raises PretrainError when the folder holds no pretraining.json.
    """
    try:
        facts = json.loads((folder / FACTS_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PretrainError(
            f"{folder} holds no readable {FACTS_FILE}. Give a folder that scripts/pretrain.py wrote."
        ) from error
    stages = [facts]
    while stages[0].get("started_from"):
        stages.insert(0, stages[0]["started_from"])
    runs = [stage_text(stage, f"Run {number}") for number, stage in enumerate(stages, start=1)]
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: image-feature-extraction
tags: [medical-imaging, self-supervised, {facts["method"]}]
---

# {name}

> {NOT_FOR_DIAGNOSIS}

A small image encoder, pretrained without labels by `scripts/pretrain.py` of medssl. Load it with
`Backbone.from_pretrained("{name}")` of medssl, or `transformers.AutoModel`. The weights are medssl's; the rights in the
images they were learnt from are as named below.

## How it was trained

{(chr(10) * 2).join(runs)}

## Measured

{figures.strip() or "Not measured."}

## Limits

It has seen a few thousand small images of four kinds. It is there so that the demo works without any download and as a
start for runs of your own; a large backbone such as DINOv2 is the better choice wherever one can be had.
"""


def write_backbone_card(folder: str | Path, name: str, figures: str = "") -> Path:
    """Write `pretrained_card` as README.md into the folder that it describes. Raises PretrainError."""
    folder = Path(folder)
    card = pretrained_card(folder, name, figures)
    with written_whole(folder / "README.md") as beside:
        beside.write_text(card, "utf-8")
    return folder / "README.md"
