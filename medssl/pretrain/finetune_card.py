"""The card of a tuned encoder: what it started from, its data, recipe, cost and figures on validation."""

from __future__ import annotations

from pathlib import Path

from medssl.backbones.backbone import Backbone
from medssl.backbones.registry import BACKBONES
from medssl.data.tasks import NOT_FOR_DIAGNOSIS, TASKS
from medssl.hub.card_signature import sign
from medssl.hub.licenses import UNKNOWN, license_fields, license_of
from medssl.hub.pull import is_hub_id
from medssl.pretrain.finetune_guard import describe_verdict, effect_lines
from medssl.templates import environment

TEMPLATE = environment("medssl.pretrain", "cards").get_template("finetuned.md.jinja")
CARD_FILE = "README.md"


def license_of_base(backbone: Backbone) -> str:
    """The licence of a backbone's weights: the registry's, else the one its card names, else unknown."""
    for spec in BACKBONES.values():
        if backbone.id in (spec.name, spec.hub_id):
            return spec.license
    card = backbone.folder and backbone.folder / CARD_FILE
    return license_of(card.read_text("utf-8")) if card and card.is_file() else UNKNOWN


def base_facts(backbone: Backbone) -> dict[str, str]:
    """What is written of the encoder that tuning started from: its name without the folders above it."""
    local = backbone.folder is not None and str(backbone.folder.resolve()) == backbone.id
    name = Path(backbone.id).name if local else backbone.id
    return {"name": name, "revision": backbone.revision, "license": license_of_base(backbone)}


def data_words(facts: dict) -> str:
    """The data in words; a name says no more than which of medssl's tasks it may be."""
    task = TASKS.get(facts["task"])
    about = "licence: not stated"
    if task:
        about = f"as medssl's task of that name: {task.data}; licence: {task.license}; {task.citation}"
    return f"Data: {facts['data']} ({about}); labels: {', '.join(facts['labels'])}"


def finetuned_card(facts: dict, name: str, license: str = UNKNOWN) -> str:
    """The card of a tuned encoder, from what finetuning.json holds; `license` is that of its weights."""
    hardware = facts["hardware"]
    cost = f"{facts['seconds'] / 60:.0f} minutes, {facts['processes']} process(es) on {hardware['name']}"
    named = {key: value for key, value in facts["recipe"].items() if value is not None}
    base = facts["base"]["name"]
    hub_name = next((spec.hub_id for spec in BACKBONES.values() if base == spec.name), base)
    return sign(
        TEMPLATE.render(
            license=license_fields(license),
            base_model=hub_name if hub_name and is_hub_id(hub_name) else "",
            title=name.split("/")[-1],
            name=name,
            not_for_diagnosis=NOT_FOR_DIAGNOSIS,
            facts=facts,
            data=data_words(facts),
            recipe=[f"{key} {value}" for key, value in named.items()],
            cost=f"{cost}, {hardware['threads']} threads, {'bf16' if hardware['bf16'] else 'float32'}",
            verdict=describe_verdict(facts["verdict"]),
            effects=effect_lines(facts["verdict"]),
        )
    )
