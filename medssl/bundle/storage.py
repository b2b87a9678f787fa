"""A bundle as a folder: written whole or not at all, found and read back."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from medssl.bundle.manifest import MANIFEST_FILE, check_manifest, write_manifest
from medssl.errors import BundleError
from medssl.heads.head import Head
from medssl.heads.patch import load_head
from medssl.hub.pull import CARD_FILE, METRICS_FILE, BundleFiles, is_hub_id, pull_bundle

CASES_FILE = "cases/train-00000-of-00001.parquet"
OLD, LOCK = ".old", ".lock"
RENAME_EXCHANGE, AT_FDCWD = 2, -100


@dataclass(frozen=True)
class Contents:
    """What a bundle folder holds; `verified` says whether a manifest vouched for it."""

    name: str
    head: Head
    cases: Dataset
    metrics: dict
    card: str
    verified: bool = False


def find_files(path: str | Path, revision: str | None = None) -> BundleFiles:
    """The parts of a bundle folder, or of a published bundle. Raises BundleError when there is none."""
    folder = Path(path)
    if is_hub_id(path):
        try:
            return pull_bundle(str(path), revision)
        except BundleError as error:
            raise BundleError(f"There is no bundle folder {str(path)!r} here. {error}") from error
    recover(folder)
    if not folder.is_dir():
        raise BundleError(f"There is no bundle folder {str(path)!r}. Build one with scripts/build.py.")
    cases = sorted(folder.glob("cases/*.parquet"))
    if not cases:
        raise BundleError(f"{folder} holds no cases/*.parquet, so it is no complete bundle. Build it again.")
    return BundleFiles(folder.name, folder / "head", cases, folder / METRICS_FILE, folder / CARD_FILE)


def read_contents(path: str | Path, revision: str | None = None) -> Contents:
    """Everything in a bundle folder or published bundle, checked against its manifest. Raises BundleError."""
    files = find_files(path, revision)
    folder = Path(path)
    local = folder.is_dir()
    verified = check_manifest(folder, files.cases) if local else False
    head = load_head(files.head)
    try:
        cases = Dataset(pa.concat_tables([pq.read_table(file) for file in files.cases]))
        metrics = json.loads(files.metrics.read_text("utf-8")) if files.metrics.is_file() else {}
        card = files.card.read_text("utf-8") if files.card.is_file() else ""
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BundleError(f"A file of bundle {path} cannot be read: {error}. Build it again.") from error
    if not isinstance(metrics, dict):
        raise BundleError(f"{files.metrics} holds no JSON object. Build the bundle again.")
    return Contents(files.name, head, cases, metrics, card, verified)


def write_contents(contents: Contents, path: str | Path) -> Path:
    """Write a bundle as a folder, beside the old one and then in its place at once. Returns the folder.

    Raises BundleError where something else stands there, another process writes, or the disk does not take it.
    """
    folder = Path(path)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover(folder)
        if folder.exists() and any(folder.iterdir()) and not (folder / "head" / "config.json").is_file():
            raise BundleError(f"{folder} exists, is not empty and is no bundle; give another place.")
        with lock_of(folder):
            beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                fill(beside, contents)
                put_in_place(beside, folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise BundleError(
            f"The bundle cannot be written to {folder}: {error.strerror or error}. Free some space or choose another "
            "place; what stood there before is as it was."
        ) from error
    return folder


def fill(folder: Path, contents: Contents) -> None:
    """Write every file of a bundle into a new folder, the manifest last, and have them on the disk."""
    contents.head.save_pretrained(folder / "head")
    (folder / "cases").mkdir()
    contents.cases.to_parquet(str(folder / CASES_FILE))
    metrics = json.dumps(contents.metrics, indent=2, ensure_ascii=False) + "\n"
    (folder / METRICS_FILE).write_text(metrics, "utf-8")
    (folder / CARD_FILE).write_text(contents.card, "utf-8")
    write_manifest(folder)
    folder.chmod(0o755)
    for place in (*folder.rglob("*"), folder):
        sync(place)


def sync(path: Path) -> None:
    """Have a file or folder on the disk, where the system can be asked to."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # folders, on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError:
        return  # a file system that cannot
    finally:
        os.close(descriptor)


@contextmanager
def lock_of(folder: Path) -> Iterator[None]:
    """Be the only process that writes this bundle. Raises BundleError when another one does."""
    place = folder.with_name(f".{folder.name}{LOCK}")
    with place.open("a+") as stream:
        try:
            import fcntl
        except ImportError:  # Windows: the last writer wins, as before
            yield
            return
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BundleError(f"Another process is writing {folder}. Wait for it, or give another place.") from error
        try:
            yield
        finally:
            place.unlink(missing_ok=True)


def exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, where the system can (Linux's renameat2)."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def put_in_place(beside: Path, folder: Path) -> None:
    """Put a written folder where it belongs; what stood there is replaced at once, or is found again by `recover`."""
    if not folder.exists():
        beside.rename(folder)
    elif not exchanged(beside, folder):
        old = folder.with_name(f".{folder.name}{OLD}")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        beside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    sync(folder.parent)


def recover(folder: Path) -> None:
    """Bring back the old bundle where a writer was killed between the two renames of `put_in_place`."""
    old = folder.with_name(f".{folder.name}{OLD}")
    if old.is_dir() and not folder.exists() and (old / MANIFEST_FILE).is_file():
        old.rename(folder)
