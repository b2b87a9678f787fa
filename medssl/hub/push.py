"""Writing to the Hugging Face Hub under one token and one visibility: whole commits, no card of another's hand lost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from medssl.errors import BundleError
from medssl.hub.card_signature import is_edited, is_same
from medssl.hub.pull import CARD_FILE, CONFIG_FILE, MODEL, hub_errors


@dataclass(frozen=True)
class Upload:
    """One repo as it is now.

    `changed` says whether this publishing made a commit, `kept_card` that its card was edited by hand and stayed.
    """

    repo_id: str
    revision: str
    changed: bool = False
    kept_card: bool = False


class Publisher:
    """Writes to the Hub under one token and one visibility. Raises BundleError for all that the Hub refuses."""

    def __init__(self, private: bool, token: str | None) -> None:
        if not (token or get_token()):
            raise BundleError("Publishing needs a token: set HF_TOKEN to one with the right to write, or log in.")
        self.api, self.private, self.token = HfApi(token=token), private, token

    def check(self, repo_id: str, kind: str) -> None:
        """Raises BundleError when the repo is there with another visibility than asked for."""
        try:
            with hub_errors(repo_id, token=self.token):
                repo = self.api.repo_info(repo_id, repo_type=kind)
        except BundleError as error:
            if type(error.__cause__) is RepositoryNotFoundError:
                return
            raise
        if bool(repo.private) != self.private:
            names = {True: "private", False: "public"}
            raise BundleError(
                f"{repo_id!r} is there already and is {names[bool(repo.private)]}; you asked for "
                f"{names[self.private]}. Change it on the Hub in the repo's settings, or publish with "
                f"--{names[bool(repo.private)]}."
            )

    def create(self, repo_id: str, kind: str) -> str:
        """Make the repo where it is not there. Returns its newest commit."""
        with hub_errors(repo_id, token=self.token):
            self.api.create_repo(repo_id, repo_type=kind, private=self.private, exist_ok=True)
            return str(self.api.repo_info(repo_id, repo_type=kind).sha)

    def has(self, repo_id: str, kind: str, revision: str | None) -> bool:
        """Whether the repo has that revision."""
        try:
            with hub_errors(repo_id, revision, self.token):
                return bool(revision and self.api.repo_info(repo_id, repo_type=kind, revision=revision))
        except BundleError as error:
            if isinstance(error.__cause__, (RepositoryNotFoundError, RevisionNotFoundError)):
                return False
            raise

    def read(self, repo_id: str, kind: str, name: str) -> str:
        """The text of a file of the newest revision; "" when there is none."""
        try:
            with hub_errors(repo_id, token=self.token):
                revision = self.api.repo_info(repo_id, repo_type=kind).sha
                path = hf_hub_download(repo_id, name, repo_type=kind, revision=revision, token=self.token)
                return Path(path).read_text("utf-8", errors="replace")
        except BundleError as error:
            if isinstance(error.__cause__, (EntryNotFoundError, RepositoryNotFoundError)):
                return ""
            raise

    def earlier(self, repo_id: str) -> dict:
        """The config of the head that is published already; {} when there is none."""
        try:
            config = json.loads(self.read(repo_id, MODEL, CONFIG_FILE) or "{}")
        except ValueError:
            return {}
        return config if isinstance(config, dict) else {}

    def commit(self, repo_id: str, kind: str, files: dict[str, Path | bytes], message: str) -> Upload:
        """Write files in one commit, the card only where no hand has edited the one that is there."""
        before = self.create(repo_id, kind)
        files, edited = dict(files), False
        card = files.get(CARD_FILE)
        if isinstance(card, bytes):
            there = self.read(repo_id, kind, CARD_FILE)
            same = bool(there) and is_same(there, card.decode())
            edited = not same and is_edited(there)
            if same or edited:
                del files[CARD_FILE]
        if not files:
            return Upload(repo_id, before, False, edited)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        with hub_errors(repo_id, token=self.token):
            done = self.api.create_commit(
                repo_id, operations, repo_type=kind, commit_message=message, parent_commit=before
            )
        return Upload(repo_id, done.oid, done.oid != before, edited)
