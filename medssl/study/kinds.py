"""Groups of backbones to compare, as data: who is in them, how each was trained, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medssl.backbones.registry import BACKBONES, SELF, SUPERVISED
from medssl.errors import BackboneError
from medssl.pretrain.finetune_facts import TUNING_FILE

RANDOM = "random:"
CONTROL, TUNED, UNKNOWN = "random control", "fine-tuned", "not stated"
KINDS = (SELF, SUPERVISED, CONTROL, TUNED)


@dataclass(frozen=True)
class Member:
    """One backbone of a group: `source` is a registry name or Hub id, None where only a folder can be it.

    `twin_of` names the member whose architecture, freshly initialised, this one is.
    """

    name: str
    kind: str
    source: str | None = None
    twin_of: str | None = None


@dataclass(frozen=True)
class BackboneGroup:
    """Backbones that are compared with each other; `pooling` None is each backbone's own default."""

    name: str
    about: str
    members: tuple[Member, ...]
    pooling: str | None = None


GROUPS: dict[str, BackboneGroup] = {
    group.name: group
    for group in (
        BackboneGroup(
            "paper",
            "the kinds of encoder that the paper compares; SimCLR and BYOL as folders, since no transformers "
            "checkpoint of them is known here",
            (
                Member("dinov2-base", SELF, "dinov2-base"),
                Member("dino-vits16", SELF, "dino-vits16"),
                Member("mae-base", SELF, "mae-base"),
                Member("simclr", SELF),
                Member("byol", SELF),
                Member("vit-base", SUPERVISED, "vit-base"),
                Member("deit-small", SUPERVISED, "deit-small"),
                Member("resnet-50", SUPERVISED, "resnet-50"),
                Member("convnext-tiny", SUPERVISED, "convnext-tiny"),
                Member("swin-tiny", SUPERVISED, "swin-tiny"),
                Member("random", CONTROL, twin_of="dinov2-base"),
            ),
        ),
        BackboneGroup(
            "dinov2-sizes",
            "one method at four sizes",
            tuple(Member(name, SELF, name) for name in ("dinov2-small", "dinov2-base", "dinov2-large", "dinov2-giant")),
        ),
        BackboneGroup(
            "offline",
            "what runs without a network: medssl-tiny, SimCLR and BYOL runs of its architecture and a supervised "
            "ViT-Tiny as folders, and medssl-tiny's own random initialisation",
            (
                Member("medssl-tiny", SELF, "medssl-tiny"),
                Member("simclr", SELF),
                Member("byol", SELF),
                Member("random", CONTROL, twin_of="medssl-tiny"),
                Member("vit-tiny", SUPERVISED),
            ),
            # DINOv2's own linear evaluation; on the validation splits as good as the mean alone or better for
            # medssl-tiny, simclr and their random initialisation.
            pooling="cls+mean",
        ),
    )
}


def choose_group(
    name: str, folders: Mapping[str, str] | None = None, without: Sequence[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """A group's sources and kinds, both by member name, with `folders` in the place of what they name.

    Raises BackboneError for an unknown group or member, and for a member that needs a folder and has none.
    """
    if name not in GROUPS:
        raise BackboneError(f"There is no group of backbones {name!r}. Allowed: {', '.join(GROUPS)}.")
    folders = folders or {}
    members = {member.name: member for member in GROUPS[name].members}
    unknown = [given for given in (*folders, *without) if given not in members]
    if unknown:
        raise BackboneError(f"{', '.join(unknown)} is not in the group {name}. Its members: {', '.join(members)}.")
    kept = [member for member in members.values() if member.name not in without]
    if not kept:
        raise BackboneError(f"All members of the group {name} are left out. Keep at least one.")
    places = {member.name: folders.get(member.name, member.source) for member in members.values()}
    sources = {}
    for member in kept:
        place = places[member.name]
        if member.twin_of and not place:
            place = places[member.twin_of] and f"{RANDOM}{places[member.twin_of]}"
        if not place:
            raise BackboneError(
                f"The group {name} takes {member.name} from a folder and none was given. "
                f"Add --folder {member.name}=DIR, or --without {member.name}."
            )
        sources[member.name] = place
    return sources, {member.name: member.kind for member in kept}


def kind_of(source: str | Path) -> str:
    """How a backbone was trained, as far as its source tells: from the registry, "random:", or the folder of a
    pretraining or fine-tuning run; "not stated" otherwise.
    """
    text = str(source)
    if text.startswith(RANDOM):
        return CONTROL
    for spec in BACKBONES.values():
        if text in (spec.name, spec.hub_id):
            return spec.supervision
    if (Path(text) / TUNING_FILE).is_file():
        return TUNED
    return SELF if (Path(text) / "pretraining.json").is_file() else UNKNOWN
