"""Publishing a bundle to the Hugging Face Hub: the cases first, then the head that names their repo and revision."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.audit.findings import without_file_names
from medssl.backbones.checkpoint import folder_revision
from medssl.backbones.registry import BACKBONES
from medssl.bundle.cards.cases import write_cases_card
from medssl.bundle.cards.model import LICENCE, Places, licence_fields, write_card
from medssl.bundle.cases import cases_fingerprint, split_cases
from medssl.bundle.manifest import MANIFEST_FILE, manifest_of
from medssl.errors import BundleError
from medssl.heads.head import Head
from medssl.hub.card_signature import MARK, is_edited, sign
from medssl.hub.pull import (
    CARD_FILE,
    CONFIG_FILE,
    DATASET,
    METRICS_FILE,
    MODEL,
    PUBLISHED,
    WEIGHTS_FILE,
    hub_errors,
    published_part,
)
from medssl.hub.push import Publisher, Upload
from medssl.pretrain.card import FACTS_FILE, plain_backbone_card, pretrained_card

if TYPE_CHECKING:
    from medssl.bundle.bundle import Bundle

SHARD_SIZE = "500MB"
BACKBONE_PREFIX = "medssl-backbone-"
BACKBONE_FILES = (CONFIG_FILE, "preprocessor_config.json", FACTS_FILE, "*.safetensors", "*.safetensors.index.json")
UNKNOWN_REVISION = "set when it is published"


@dataclass(frozen=True)
class Published:
    """What lies on the Hub after publishing; `backbone` is None where the encoder was there before."""

    head: Upload
    cases: Upload
    backbone: Upload | None = None
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line a repo, and the notes."""
        uploads = [("backbone", self.backbone), ("cases", self.cases), ("head", self.head)]
        return [upload_line(name, upload) for name, upload in uploads if upload] + self.notes


def upload_line(name: str, upload: Upload) -> str:
    """What became of one repo, as a line of text."""
    said = "published" if upload.changed else "unchanged"
    kept = "; its card was edited by hand and is left as it is" if upload.kept_card else ""
    return f"{name}: {upload.repo_id} at {upload.revision}, {said}{kept}"


def slug(text: str) -> str:
    """Text as a part of a repo's name."""
    return re.sub(r"[-.]{2,}", "-", re.sub(r"[^A-Za-z0-9._-]+", "-", text)).strip("-.")


def backbone_name(identity: str) -> str:
    """The short name of a backbone in a repo's name: the registry's, or the last part of a folder or Hub id."""
    known = next((spec.name for spec in BACKBONES.values() if identity in (spec.name, spec.hub_id)), None)
    return known or slug(Path(identity).name.removeprefix(BACKBONE_PREFIX))


def plan_places(bundle: Bundle, namespace: str, backbone: str | Path | None = None, name: str | None = None) -> Places:
    """The repos that a bundle will be published as.

    Raises BundleError for a bad name, or a backbone that the Hub would not have.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", namespace):
        raise BundleError(f"{namespace!r} is no namespace. Give the name of a user or an organisation on the Hub.")
    fitted = bundle.head.backbone
    identity, revision = str(fitted["id"]), str(fitted["revision"])
    if backbone is not None:
        found = folder_revision(backbone_folder(backbone))
        if found != revision:
            raise BundleError(
                f"The bundle was fitted on {identity} at revision {revision}; the backbone folder {str(backbone)!r} "
                f"is {found}. Give the folder it was fitted on, or leave the backbone out where it is on the Hub."
            )
        identity, revision = f"{namespace}/{BACKBONE_PREFIX}{backbone_name(str(backbone))}", UNKNOWN_REVISION
    elif revision.startswith("sha256:") and identity not in BACKBONES:
        raise BundleError(
            f"The bundle was fitted on the backbone folder {identity!r}, which nobody else has. Publish it too: "
            "--backbone DIR, or publish(..., backbone=DIR)."
        )
    own = slug(name or f"medssl-{bundle.task.name}-{backbone_name(str(fitted['id']))}")
    head = f"{namespace}/{own}"
    return Places(head, f"{head}-cases", identity, revision)


def backbone_folder(folder: str | Path) -> Path:
    """The folder, once it is sure that it holds a checkpoint fit for publishing. Raises BundleError."""
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file() or not list(folder.glob("*.safetensors")):
        raise BundleError(
            f"{str(folder)!r} holds no {CONFIG_FILE} with *.safetensors. Give a folder written by save_pretrained or "
            "scripts/pretrain.py; pickled weights are not published."
        )
    return folder


def publish_cases(
    publisher: Publisher, bundle: Bundle, places: Places, images: bool, earlier: dict
) -> tuple[Upload, dict]:
    """Publish the cases where they differ from those published. Returns their repo, and what the head says of it."""
    parts, repo_id = split_cases(bundle.cases, images), places.cases
    fingerprint, known = cases_fingerprint(parts), published_part(earlier, "cases")
    before = publisher.create(repo_id, DATASET)
    same = known.get("repo_id") == repo_id and known.get("fingerprint") == fingerprint
    if same and publisher.has(repo_id, DATASET, known.get("revision")):
        revision, pushed = known["revision"], False
    else:
        with hub_errors(repo_id, token=publisher.token):
            revision = parts.push_to_hub(
                repo_id,
                commit_message=f"Cases of {bundle.task.name}",
                private=publisher.private,
                token=publisher.token,
                max_shard_size=SHARD_SIZE,
            ).oid
        pushed = revision != before
    card = write_cases_card(bundle, places, images, publisher.read(repo_id, DATASET, CARD_FILE))
    written = publisher.commit(repo_id, DATASET, {CARD_FILE: card.encode()}, "Card of the cases")
    revision = written.revision if written.changed else revision
    facts = {"repo_id": repo_id, "revision": revision, "fingerprint": fingerprint, "images": images}
    return Upload(repo_id, revision, pushed or written.changed, written.kept_card), facts


def publish_checkpoint(publisher: Publisher, folder: Path, repo_id: str, earlier: dict) -> tuple[Upload, dict]:
    """Publish a checkpoint folder where it differs from the one published. Returns as `publish_cases` does."""
    fingerprint, known = folder_revision(folder), published_part(earlier, "backbone")
    files: dict[str, Path | bytes] = {path.name: path for name in BACKBONE_FILES for path in folder.glob(name)}
    files[CARD_FILE] = backbone_card(folder, repo_id).encode()
    upload = publisher.commit(repo_id, MODEL, files, "Backbone")
    same = known.get("repo_id") == repo_id and known.get("fingerprint") == fingerprint
    if same and not upload.changed and publisher.has(repo_id, MODEL, known.get("revision")):
        upload = replace(upload, revision=known["revision"])
    return upload, {"repo_id": repo_id, "revision": upload.revision, "fingerprint": fingerprint}


def backbone_card(folder: Path, repo_id: str) -> str:
    """The folder's own card, or one made of what is known of the checkpoint."""
    own = folder / CARD_FILE
    if own.is_file():
        return sign(own.read_text("utf-8"))
    name = repo_id.split("/")[-1]
    facts = folder / FACTS_FILE
    return sign(pretrained_card(folder, name) if facts.is_file() else plain_backbone_card(repo_id))


def head_card(bundle: Bundle, places: Places, licence: str) -> str:
    """The card to publish: a hand-edited one of the bundle as it is, else one made for these places."""
    if MARK.search(bundle.card) and is_edited(bundle.card):
        return sign(bundle.card)
    return write_card(bundle, places=places, licence=licence)


def head_config(head: Head, folder: Path, places: Places, published: dict) -> bytes:
    """The head's config as it is published: with the encoder's place on the Hub, and the repos that belong to it."""
    config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    config["backbone"] = {**head.backbone, "id": places.backbone, "revision": places.backbone_revision}
    config[PUBLISHED] = published
    return (json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def as_json(value: object) -> bytes:
    """Plain values as the bytes of a JSON file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def licence_notes(bundle: Bundle, private: bool, images: bool) -> list[str]:
    """What the publisher should think of before thumbnails are public."""
    if private or not images or licence_fields(bundle.task.licence)["license"] not in ("unknown", "other"):
        return []
    return [
        f"note: the thumbnails are public; the licence of the images is: {bundle.task.licence}. Leave them out with "
        "--no-images where it does not allow that."
    ]


def publish_bundle(
    bundle: Bundle,
    namespace: str,
    private: bool = True,
    images: bool = True,
    backbone: str | Path | None = None,
    name: str | None = None,
    licence: str = LICENCE,
    token: str | None = None,
) -> Published:
    """Publish a bundle as NS/medssl-TASK-BACKBONE (or `name`) and the same with -cases; both private unless asked.

    The cases come first, and the head in one commit that names their revision, so that a head never points to cases
    that are not there. What is on the Hub already is not sent again; a card that a hand edited stays. `backbone` is a
    folder to publish too. Raises BundleError.
    """
    places = plan_places(bundle, namespace, backbone, name)
    publisher = Publisher(private, token)
    repos = [(places.cases, DATASET), (places.head, MODEL)] + ([(places.backbone, MODEL)] if backbone else [])
    for repo_id, kind in repos:
        publisher.check(repo_id, kind)
    earlier, facts, encoder = publisher.earlier(places.head), {}, None
    if backbone is not None:
        encoder, facts["backbone"] = publish_checkpoint(publisher, backbone_folder(backbone), places.backbone, earlier)
        places = Places(places.head, places.cases, encoder.repo_id, encoder.revision)
    elif published_part(earlier, "backbone").get("repo_id") == places.backbone:
        facts["backbone"] = published_part(earlier, "backbone")
    cases, facts["cases"] = publish_cases(publisher, bundle, places, images, earlier)
    with tempfile.TemporaryDirectory(prefix="medssl-publish-") as work:
        folder = Path(work)
        bundle.head.save_pretrained(folder)
        files: dict[str, Path | bytes] = {
            CONFIG_FILE: head_config(bundle.head, folder, places, facts),
            WEIGHTS_FILE: folder / WEIGHTS_FILE,
            METRICS_FILE: as_json(without_file_names(bundle.metrics)),
        }
        # Not the card: it may be edited on the Hub, and then its own signature says so.
        files[MANIFEST_FILE] = manifest_of(files).encode()
        files[CARD_FILE] = head_card(bundle, places, licence).encode()
        head = publisher.commit(places.head, MODEL, files, f"Bundle of {bundle.task.name}")
    return Published(head, cases, encoder, licence_notes(bundle, private, images))


def publish_backbone(
    folder: str | Path, namespace: str, private: bool = True, name: str | None = None, token: str | None = None
) -> Upload:
    """Publish a checkpoint folder as NS/medssl-backbone-FOLDER (or `name`). Raises BundleError."""
    folder = backbone_folder(folder)
    repo_id = f"{namespace}/{slug(name or BACKBONE_PREFIX + backbone_name(str(folder.resolve())))}"
    publisher = Publisher(private, token)
    publisher.check(repo_id, MODEL)
    return publish_checkpoint(publisher, folder, repo_id, {})[0]


def plan_lines(bundle: Bundle, places: Places, private: bool, images: bool, publishes_backbone: bool) -> Sequence[str]:
    """What `publish_bundle` would do, in words, without asking the Hub anything."""
    kind = "private" if private else "PUBLIC"
    parts = split_cases(bundle.cases, images)
    counts = ", ".join(f"{len(cases)} {split}" for split, cases in parts.items())
    thumbnails = "with thumbnails" if images else "without thumbnails"
    lines = [f"1. {kind} model repo {places.backbone}: the backbone"] if publishes_backbone else []
    lines.append(f"{len(lines) + 1}. {kind} data set repo {places.cases}: {counts} cases, {thumbnails}")
    lines.append(f"{len(lines) + 1}. {kind} model repo {places.head}: {CONFIG_FILE}, {WEIGHTS_FILE}, {METRICS_FILE}")
    return [*lines, *licence_notes(bundle, private, images)]
