"""Publishing a bundle to the Hugging Face Hub: the cases first, then the head that names their repo and revision."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from medssl.audit.findings import without_file_names
from medssl.backbones.checkpoint import folder_revision
from medssl.bundle.cards.cases import write_cases_card
from medssl.bundle.cards.model import write_card
from medssl.bundle.cases import cases_fingerprint, split_cases
from medssl.bundle.manifest import MANIFEST_FILE, manifest_of
from medssl.bundle.repos import BundleRepos, backbone_folder, backbone_repo, plan_repos
from medssl.errors import BundleError
from medssl.hub.card_signature import MARK, is_edited, sign
from medssl.hub.licenses import UNKNOWN, license_fields, license_of
from medssl.hub.pull import (
    CARD_FILE,
    CONFIG_FILE,
    DATASET,
    LOCALIZER_FILES,
    METRICS_FILE,
    MODEL,
    PUBLISHED,
    REGION_FILES,
    SPACE_FILE,
    WEIGHTS_FILE,
    hub_errors,
    published_part,
)
from medssl.hub.push import Publisher, Upload
from medssl.pretrain.card import plain_backbone_card, pretrained_card
from medssl.pretrain.facts import FACTS_FILE
from medssl.pretrain.finetune_card import finetuned_card
from medssl.pretrain.finetune_facts import TUNING_FILE, read_tuning

if TYPE_CHECKING:
    from medssl.bundle.bundle import Bundle
    from medssl.heads.localizer import Localizer
    from medssl.library.regions import RegionIndex

SHARD_SIZE = "500MB"
BACKBONE_FILES = (
    *(CONFIG_FILE, "preprocessor_config.json", FACTS_FILE, TUNING_FILE),
    *("*.safetensors", "*.safetensors.index.json"),
)


@dataclass(frozen=True)
class PublishOptions:
    """How a bundle is published; every field has a default.

    `private` says who can see the repos, `images` whether the cases keep their thumbnails. `backbone` is a folder to
    publish too, `name` the head's repo. `license` is that of the head and `backbone_license` that of the backbone's
    weights, as the Hub names them or in words; one that nobody named is unknown. `token` is the Hub's (default: the
    one that is set).
    """

    private: bool = True
    images: bool = True
    backbone: str | Path | None = None
    name: str | None = None
    license: str = UNKNOWN
    backbone_license: str = UNKNOWN
    token: str | None = None


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
    state = "published" if upload.changed else "unchanged"
    card = "; its card was edited by hand and is left as it is" if upload.kept_card else ""
    return f"{name}: {upload.repo_id} at {upload.revision}, {state}{card}"


def publish_cases(
    publisher: Publisher, bundle: Bundle, repos: BundleRepos, images: bool, earlier: dict
) -> tuple[Upload, dict]:
    """Publish the cases where they differ from those published. Returns their repo, and what the head says of it."""
    parts, repo_id = split_cases(bundle.cases, images), repos.cases
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
    card = write_cases_card(bundle, repos, images, publisher.read(repo_id, DATASET, CARD_FILE))
    written = publisher.commit(repo_id, DATASET, {CARD_FILE: card.encode()}, "Card of the cases")
    revision = written.revision if written.changed else revision
    facts = {"repo_id": repo_id, "revision": revision, "fingerprint": fingerprint, "images": images}
    return Upload(repo_id, revision, pushed or written.changed, written.kept_card), facts


def publish_checkpoint(
    publisher: Publisher, folder: Path, repo_id: str, earlier: dict, license: str
) -> tuple[Upload, dict]:
    """Publish a checkpoint folder where it differs from the one published. Returns as `publish_cases` does."""
    fingerprint, known = folder_revision(folder), published_part(earlier, "backbone")
    files: dict[str, Path | bytes] = {path.name: path for name in BACKBONE_FILES for path in folder.glob(name)}
    files[CARD_FILE] = backbone_card(folder, repo_id, license).encode()
    upload = publisher.commit(repo_id, MODEL, files, "Backbone")
    same = known.get("repo_id") == repo_id and known.get("fingerprint") == fingerprint
    if same and not upload.changed and publisher.has(repo_id, MODEL, known.get("revision")):
        upload = replace(upload, revision=known["revision"])
    return upload, {"repo_id": repo_id, "revision": upload.revision, "fingerprint": fingerprint}


def backbone_card(folder: Path, repo_id: str, license: str) -> str:
    """The folder's own card, or one made of what is known of the checkpoint. Raises BundleError."""
    own, tuning = folder / CARD_FILE, read_tuning(folder)
    if own.is_file():
        try:
            text = own.read_text("utf-8")
            if tuning and not is_edited(text):
                return finetuned_card(tuning, repo_id, license_of(text) if license == UNKNOWN else license)
            return sign(text)
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"The card {own} cannot be read as text: {error}. Mend or remove it.") from error
    if (folder / FACTS_FILE).is_file():
        return sign(pretrained_card(folder, repo_id, license=license))
    return sign(plain_backbone_card(repo_id, license))


def keeps_own_card(bundle: Bundle) -> bool:
    """Whether the bundle's card was medssl's and then edited by hand, so that it is published as it is."""
    return bool(MARK.search(bundle.card)) and is_edited(bundle.card)


def head_card(bundle: Bundle, repos: BundleRepos, license: str) -> str:
    """The card to publish: a hand-edited one of the bundle as it is, else one made for these repos."""
    return sign(bundle.card) if keeps_own_card(bundle) else write_card(bundle, repos=repos, license=license)


def with_backbone(path: Path, repos: BundleRepos, **more: dict) -> bytes:
    """A config as it is published: with the encoder's repo, and what else is to stand in it."""
    config = json.loads(path.read_text("utf-8"))
    config["backbone"] |= {"id": repos.backbone, "revision": repos.backbone_revision}
    return (json.dumps({**config, **more}, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def optional_parts(bundle: Bundle) -> dict[tuple[str, str], Localizer | RegionIndex]:
    """The parts that not every bundle has, by the names of their config and weights."""
    parts = {LOCALIZER_FILES: bundle.localizer, REGION_FILES: bundle.regions}
    return {files: part for files, part in parts.items() if part is not None}


def as_json(value: object) -> bytes:
    """Plain values as the bytes of a JSON file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def license_notes(bundle: Bundle, options: PublishOptions) -> list[str]:
    """What the publisher should know of licenses."""
    notes = []
    if keeps_own_card(bundle):
        if options.license != UNKNOWN:
            notes.append("note: the card was edited by hand and is published as it is; write the license into it.")
    elif license_fields(options.license)["license"] == UNKNOWN:
        notes.append("note: the card says that the head's license is unknown; name it by --license.")
    public = options.images and not options.private
    if public and license_fields(bundle.task.license)["license"] in (UNKNOWN, "other"):
        notes.append(
            f"note: the thumbnails are public; the license of the images is: {bundle.task.license}. Leave them out "
            "with --no-images where it does not allow that."
        )
    return notes


def publish_head(publisher: Publisher, bundle: Bundle, repos: BundleRepos, facts: dict, license: str) -> Upload:
    """Publish head, figures, manifest and card in one commit; `facts` are what the config says of the other repos."""
    try:
        with tempfile.TemporaryDirectory(prefix="medssl-publish-") as work:
            folder = Path(work)
            bundle.head.save_pretrained(folder)
            files: dict[str, Path | bytes] = {
                CONFIG_FILE: with_backbone(folder / CONFIG_FILE, repos, **{PUBLISHED: facts}),
                WEIGHTS_FILE: folder / WEIGHTS_FILE,
                METRICS_FILE: as_json(without_file_names(bundle.metrics)),
            }
            if bundle.space is not None:
                files[SPACE_FILE] = bundle.space.to_bytes()
            for (config, weights), part in optional_parts(bundle).items():
                part.save_pretrained((folder / config).parent)
                files |= {config: with_backbone(folder / config, repos), weights: folder / weights}
            # Not the card: it may be edited on the Hub, and then its own signature says so.
            files[MANIFEST_FILE] = manifest_of(files).encode()
            files[CARD_FILE] = head_card(bundle, repos, license).encode()
            return publisher.commit(repos.head, MODEL, files, f"Bundle of {bundle.task.name}")
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"The head cannot be written for sending: {getattr(error, 'strerror', None) or error}. Free some space in "
            f"{tempfile.gettempdir()} and publish again; the cases need not be sent again."
        ) from error


def publish_bundle(
    bundle: Bundle,
    namespace: str,
    options: PublishOptions | None = None,
    **settings: Any,  # noqa: ANN401
) -> Published:
    """Publish a bundle as NS/medssl-TASK-BACKBONE (or `name`) and the same with -cases; both private unless asked.

    The cases come first, and the head in one commit that names their revision, so that a head never points to cases
    that are not there. What is on the Hub already is not sent again; a card that a hand edited stays. `settings` are
    fields of PublishOptions. Raises BundleError.
    """
    options = replace(options or PublishOptions(), **settings)
    repos = plan_repos(bundle, namespace, options.backbone, options.name)
    publisher = Publisher(options.private, options.token)
    checked = [(repos.cases, DATASET), (repos.head, MODEL)] + ([(repos.backbone, MODEL)] if options.backbone else [])
    for repo_id, kind in checked:
        publisher.check(repo_id, kind)
    earlier, facts, encoder = publisher.earlier(repos.head), {}, None
    if options.backbone is not None:
        folder = backbone_folder(options.backbone)
        encoder, facts["backbone"] = publish_checkpoint(
            publisher, folder, repos.backbone, earlier, options.backbone_license
        )
        repos = replace(repos, backbone=encoder.repo_id, backbone_revision=encoder.revision)
    elif published_part(earlier, "backbone").get("repo_id") == repos.backbone:
        facts["backbone"] = published_part(earlier, "backbone")
    cases, facts["cases"] = publish_cases(publisher, bundle, repos, options.images, earlier)
    head = publish_head(publisher, bundle, repos, facts, options.license)
    return Published(head, cases, encoder, license_notes(bundle, options))


def publish_backbone(
    folder: str | Path,
    namespace: str,
    private: bool = True,
    name: str | None = None,
    license: str = UNKNOWN,
    token: str | None = None,
) -> Upload:
    """Publish a checkpoint folder as NS/medssl-backbone-FOLDER (or `name`).

    `license` is that of the weights, for a card where the folder has none. Raises BundleError.
    """
    folder = backbone_folder(folder)
    repo_id = backbone_repo(folder, namespace, name)
    publisher = Publisher(private, token)
    publisher.check(repo_id, MODEL)
    return publish_checkpoint(publisher, folder, repo_id, {}, license)[0]


def plan_text(bundle: Bundle, namespace: str, options: PublishOptions) -> str:
    """What `publish_bundle` would do, with the cards, without asking the Hub anything. Raises BundleError."""
    repos = plan_repos(bundle, namespace, options.backbone, options.name)
    kind = "private" if options.private else "PUBLIC"
    counts = ", ".join(f"{len(cases)} {split}" for split, cases in split_cases(bundle.cases, options.images).items())
    thumbnails = "with thumbnails" if options.images else "without thumbnails"
    uploads = [f"{kind} model repo {repos.backbone}: the backbone"] if options.backbone else []
    uploads.append(f"{kind} data set repo {repos.cases}: {counts} cases, {thumbnails}")
    space = [] if bundle.space is None else [SPACE_FILE]
    more = [name for files in optional_parts(bundle) for name in files]
    names = [CONFIG_FILE, WEIGHTS_FILE, *space, METRICS_FILE, MANIFEST_FILE, *more]
    uploads.append(f"{kind} model repo {repos.head}: {', '.join(names)}")
    steps = [f"{number}. {upload}" for number, upload in enumerate(uploads, start=1)]
    cards = {
        repos.cases: write_cases_card(bundle, repos, options.images),
        repos.head: head_card(bundle, repos, options.license),
    }
    return "\n".join(
        [
            *steps,
            *license_notes(bundle, options),
            *(f"\n--- card of {repo_id}\n\n{card}" for repo_id, card in cards.items()),
        ]
    )
