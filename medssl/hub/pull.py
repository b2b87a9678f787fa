"""Reading from the Hugging Face Hub: one revision of one repo, from the cache without a network, errors in words."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from medssl.errors import BundleError
from medssl.shapes import read_json

MODEL, DATASET = "model", "dataset"
CONFIG_FILE, METRICS_FILE, CARD_FILE = "config.json", "metrics.json", "README.md"
WEIGHTS_FILE, MANIFEST_FILE = "model.safetensors", "manifest.json"
SPACE_FILE = "case_space.safetensors"  # of a head whose library does not compare plain embeddings
LOCALIZER = "localizer"  # the folder of a bundle that holds one, with a config and weights of its own
CHECKPOINT = (CONFIG_FILE, "preprocessor_config.json", "finetuning.json")
WEIGHTS = (WEIGHTS_FILE, "model-*.safetensors", "model.safetensors.index.json")
REGIONS = "regions"  # the same of the cases' regions
LOCALIZER_FILES = (f"{LOCALIZER}/{CONFIG_FILE}", f"{LOCALIZER}/{WEIGHTS_FILE}")
REGION_FILES = (f"{REGIONS}/{CONFIG_FILE}", f"{REGIONS}/{WEIGHTS_FILE}")
PUBLISHED = "published"  # the key of a head's config that names the repos and revisions that belong to it
# The clients' own retries take 25 s and more where there is no network; one short question first spares them.
ANSWER_WITHIN = 4.0
UNREACHABLE_FOR = 30.0
SETTINGS = ("revision", "cache_dir", "force_download", "token", "local_files_only")


@dataclass(frozen=True)
class BundleFiles:
    """Where the parts of a bundle lie: `head` is the folder of config and weights, `cases` are parquet files.

    `root` is the folder that the manifest speaks of, without the cases where `cases_fingerprint` vouches for them.
    """

    name: str
    root: Path
    head: Path
    cases: list[Path]
    metrics: Path
    card: Path
    cases_fingerprint: str | None = None

    def part(self, name: str) -> Path | None:
        """The folder of a part that not every bundle has, None where this one does not."""
        folder = self.root / name
        return folder if folder.is_dir() else None


class _Network:
    """Until when the Hub is taken for unreachable, so that a load of three repos waits for it once."""

    down_until = 0.0


def is_hub_id(source: str | Path) -> bool:
    """Whether this can only be a Hub id: of the form owner/name, and no folder here."""
    text = str(source)
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text)) and not Path(text).exists()


def in_words(error: Exception, repo_id: str, revision: str | None = None, token: str | bool | None = None) -> str:
    """What the Hub's refusal means, and what to do about it."""
    repo = f"{repo_id!r}" + (f" (revision {revision})" if revision else "")
    status = getattr(getattr(error, "response", None), "status_code", None)
    known = bool(token if isinstance(token, str) else token is not False and get_token())
    if isinstance(error, GatedRepoError):
        return (
            f"{repo} on the Hub is gated. Ask for access at {constants.ENDPOINT}/{repo_id}, then set HF_TOKEN to a "
            "token of that account or run `hf auth login`."
        )
    if isinstance(error, RepositoryNotFoundError) and not known:
        return (
            f"There is no {repo} on the Hub that can be read without a token. Check the name; if it is private, set "
            "HF_TOKEN or run `hf auth login`."
        )
    if isinstance(error, RepositoryNotFoundError):
        return f"There is no {repo} on the Hub, or your token may not read it. Check the name and the token's rights."
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id!r} on the Hub has no revision {revision!r}. Give a branch, a tag or a commit that it has."
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"{repo} on the Hub lacks a file that was asked for. It was not published by medssl, or not wholly."
    if status in (401, 403):
        said = "the token" if known else "you without a token"
        return (
            f"The Hub refuses {said} for {repo} ({status}). Set HF_TOKEN to a valid token with the right to do this, "
            "or run `hf auth login`."
        )
    if status == 429:
        return f"The Hub takes no more requests for now ({repo}). Try again in a few minutes."
    if isinstance(error, OSError) and not isinstance(
        error, (HTTPError, ConnectionError, TimeoutError, EntryNotFoundError)
    ):
        return f"A file of {repo} could not be read or written here: {error}."
    if status is not None:
        return f"The Hub answered for {repo} with the error {status}. Try again later."
    return (
        f"The Hub at {constants.ENDPOINT} cannot be reached and {repo} is not wholly in the cache here. Check the "
        "network, and HF_HUB_OFFLINE and HF_ENDPOINT where you set them, or give a folder."
    )


@contextmanager
def hub_errors(repo_id: str, revision: str | None = None, token: str | bool | None = None) -> Iterator[None]:
    """Turn what the Hub's clients raise inside into a BundleError in words."""
    try:
        yield
    except HFValidationError as error:
        raise BundleError(f"{repo_id!r} is no name that the Hub allows. Names are of the form owner/name.") from error
    except (HTTPError, OSError) as error:
        raise BundleError(in_words(error, repo_id, revision, token)) from error
    except ValueError as error:
        said = str(error).strip().splitlines() or ["no reason given"]
        raise BundleError(f"The Hub does not take what is meant for {repo_id!r}: {' '.join(said)}") from error


def reach(repo_id: str, revision: str | None = None, kind: str = MODEL, token: str | bool | None = None) -> bool:
    """Whether the Hub can be asked for that revision; False when only the cache can. Answers within some seconds.

    Raises BundleError when the Hub says no: unknown, private, gated, no such revision, a bad token.
    """
    if constants.HF_HUB_OFFLINE or time.monotonic() < _Network.down_until:
        return False
    try:
        HfApi(token=token).repo_info(repo_id, repo_type=kind, revision=revision, timeout=ANSWER_WITHIN)
    except HfHubHTTPError as error:
        if error.response.status_code >= 500:
            return False
        raise BundleError(in_words(error, repo_id, revision, token)) from error
    except HFValidationError as error:
        raise BundleError(f"{repo_id!r} is no name that the Hub allows. Names are of the form owner/name.") from error
    except (HTTPError, OSError):
        _Network.down_until = time.monotonic() + UNREACHABLE_FOR
        return False
    return True


def pull(repo_id: str, files: Sequence[str], kind: str = MODEL, **settings: Any) -> Path:  # noqa: ANN401
    """The folder that holds those files (glob patterns) of one revision of a repo, from the cache without a network.

    `settings` are any of revision, cache_dir, force_download, token, local_files_only. Raises BundleError.
    """
    revision, token = settings.get("revision"), settings.get("token")
    online = not settings.pop("local_files_only", False) and reach(repo_id, revision, kind, token)
    with hub_errors(repo_id, revision, token):
        return Path(
            snapshot_download(
                repo_id, repo_type=kind, allow_patterns=list(files), local_files_only=not online, **settings
            )
        )


def pull_checkpoint(repo_id: str, revision: str | None = None) -> Path:
    """The folder, named by its commit, of a transformers checkpoint in safetensors. Raises BundleError."""
    folder = pull(repo_id, (*CHECKPOINT, *WEIGHTS), revision=revision)
    if not any(path for name in WEIGHTS for path in folder.glob(name)):
        raise BundleError(
            f"{repo_id!r} on the Hub has no weights in safetensors. Pickled weights can run code and are not loaded: "
            "ask its owner for safetensors, or give a folder written by save_pretrained()."
        )
    return folder


def published_part(config: dict, part: str) -> dict:
    """What a head's config says of the repo of its "cases" or "backbone"; {} where it says nothing."""
    published = config.get(PUBLISHED)
    facts = published.get(part) if isinstance(published, dict) else None
    return facts if isinstance(facts, dict) else {}


def pull_bundle(repo_id: str, revision: str | None = None, token: str | bool | None = None) -> BundleFiles:
    """A published bundle: the head at `revision`, and the cases at the revision that the head's config names.

    Raises BundleError.
    """
    own = (CONFIG_FILE, WEIGHTS_FILE, SPACE_FILE, METRICS_FILE, CARD_FILE, MANIFEST_FILE)
    files = (*own, *LOCALIZER_FILES, *REGION_FILES)
    head = pull(repo_id, files, revision=revision, token=token)
    if not (head / CONFIG_FILE).is_file():
        raise BundleError(f"{repo_id!r} on the Hub holds no {CONFIG_FILE}, so it is no medssl bundle.")
    cases = published_part(read_json(head / CONFIG_FILE, f"The config of {repo_id!r}", BundleError), "cases")
    if not all(isinstance(cases.get(key), str) and cases[key] for key in ("repo_id", "revision")):
        raise BundleError(
            f"{repo_id!r} on the Hub names no cases, so it is a head without a bundle. "
            "ClassificationHead.from_pretrained opens it; scripts/publish.py publishes a whole bundle."
        )
    folder = pull(cases["repo_id"], ("data/*.parquet",), DATASET, revision=cases["revision"], token=token)
    parts = sorted(folder.glob("data/*.parquet"))
    if not parts:
        raise BundleError(f"{cases['repo_id']!r} on the Hub holds no cases at revision {cases['revision']}.")
    name, fingerprint = repo_id.split("/")[-1], str(cases.get("fingerprint") or "")
    return BundleFiles(name, head, head, parts, head / METRICS_FILE, head / CARD_FILE, fingerprint)
