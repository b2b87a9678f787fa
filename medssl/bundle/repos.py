"""The Hub repos that a published bundle consists of: their names, chosen before anything is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.backbones.checkpoint import folder_revision
from medssl.backbones.registry import BACKBONES
from medssl.errors import BundleError
from medssl.hub.pull import CONFIG_FILE

if TYPE_CHECKING:
    from medssl.bundle.bundle import Bundle

BACKBONE_PREFIX = "medssl-backbone-"
UNKNOWN_REVISION = "set when it is published"


@dataclass(frozen=True)
class BundleRepos:
    """The Hub repos of head and cases; `backbone` and its revision are where the encoder lies."""

    head: str
    cases: str
    backbone: str
    backbone_revision: str


def slug(text: str) -> str:
    """Text as a part of a repo's name."""
    return re.sub(r"[-.]{2,}", "-", re.sub(r"[^A-Za-z0-9._-]+", "-", text)).strip("-.")


def backbone_name(identity: str) -> str:
    """The short name of a backbone in a repo's name: the registry's, or the last part of a folder or Hub id."""
    known = next((spec.name for spec in BACKBONES.values() if identity in (spec.name, spec.hub_id)), None)
    return known or slug(Path(identity).name.removeprefix(BACKBONE_PREFIX))


def backbone_folder(folder: str | Path) -> Path:
    """The folder, once it is sure that it holds a checkpoint fit for publishing. Raises BundleError."""
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file() or not list(folder.glob("*.safetensors")):
        raise BundleError(
            f"{str(folder)!r} holds no {CONFIG_FILE} with *.safetensors. Give a folder written by save_pretrained or "
            "scripts/pretrain.py; pickled weights are not published."
        )
    return folder


def backbone_repo(folder: str | Path, namespace: str, name: str | None = None) -> str:
    """The repo that a backbone's folder is published as."""
    return f"{namespace}/{slug(name or BACKBONE_PREFIX + backbone_name(str(Path(folder).resolve())))}"


def plan_repos(
    bundle: Bundle, namespace: str, backbone: str | Path | None = None, name: str | None = None
) -> BundleRepos:
    """The repos that a bundle will be published as.

    Raises BundleError for a bad name, or a backbone that the Hub would not have.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", namespace):
        raise BundleError(f"{namespace!r} is no namespace. Give the name of a user or an organisation on the Hub.")
    fitted = bundle.head.backbone
    identity, revision = str(fitted["id"]), str(fitted["revision"])
    head = f"{namespace}/{slug(name or f'medssl-{bundle.task.name}-{backbone_name(identity)}')}"
    if backbone is not None:
        given = folder_revision(backbone_folder(backbone))
        if given != revision:
            raise BundleError(
                f"The bundle was fitted on {identity} at revision {revision}; the backbone folder {str(backbone)!r} "
                f"is {given}. Give the folder it was fitted on, or leave the backbone out where it is on the Hub."
            )
        identity, revision = backbone_repo(backbone, namespace), UNKNOWN_REVISION
    elif revision.startswith("sha256:") and identity not in BACKBONES:
        raise BundleError(
            f"The bundle was fitted on the backbone folder {identity!r}, which nobody else has. Publish it too: "
            "--backbone DIR, or publish_bundle(..., backbone=DIR)."
        )
    return BundleRepos(head, f"{head}-cases", identity, revision)
