"""A bundle as a folder: written whole or not at all, found and read back."""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import logging
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from safetensors import SafetensorError

from medssl.backbones.reading import PLAIN
from medssl.bundle.cases import cases_fingerprint, check_cases, split_cases, without_paths
from medssl.bundle.manifest import check_manifest, write_manifest
from medssl.bundle.stored_metrics import check_metrics
from medssl.errors import BundleError
from medssl.heads.head import Head
from medssl.heads.localizer import Localizer
from medssl.heads.patch import load_head
from medssl.hub.pull import (
    CARD_FILE,
    CONFIG_FILE,
    LOCALIZER,
    LOCALIZER_FILES,
    MANIFEST_FILE,
    METRICS_FILE,
    REGION_FILES,
    REGIONS,
    SPACE_FILE,
    WEIGHTS_FILE,
    BundleFiles,
    is_hub_id,
    pull_bundle,
)
from medssl.library.regions import RegionIndex
from medssl.library.space import CaseSpace
from medssl.shapes import read_json

CASES_FILE = "cases/train-00000-of-00001.parquet"
log = logging.getLogger(__name__)

NEW, OLD, LOCK = ".new-", ".old", ".lock"
RENAME_EXCHANGE, AT_FDCWD = 2, -100
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)  # said by file systems that cannot


@dataclass(frozen=True)
class Contents:
    """What a bundle folder holds."""

    name: str
    head: Head
    cases: Dataset
    metrics: dict
    card: str
    localizer: Localizer | None = None
    regions: RegionIndex | None = None
    space: CaseSpace | None = None


def find_files(path: str | Path, revision: str | None = None) -> BundleFiles:
    """The parts of a bundle folder, or of a published bundle. Raises BundleError when there is none."""
    folder = Path(path)
    if is_hub_id(path):
        try:
            return pull_bundle(str(path), revision)
        except BundleError as error:
            raise BundleError(f"There is no bundle folder {str(path)!r} here. {error}") from error
    if not folder.exists() and is_bundle(folder.with_name(f".{folder.name}{OLD}")):
        try:
            with lock_of(folder):
                recover(folder)
        except OSError as error:
            raise BundleError(
                f"{folder} was left half replaced and cannot be put back: {error.strerror or error}. Make its folder "
                "writable, and load again."
            ) from error
    if not folder.is_dir():
        raise BundleError(f"There is no bundle folder {str(path)!r}. Build one with scripts/build.py.")
    cases = sorted(folder.glob("cases/*.parquet"))
    if not cases:
        raise BundleError(f"{folder} holds no cases/*.parquet, so it is no complete bundle. Build it again.")
    return BundleFiles(folder.name, folder, folder / "head", cases, folder / METRICS_FILE, folder / CARD_FILE)


def read_contents(path: str | Path, revision: str | None = None) -> Contents:
    """Everything in a bundle folder or published bundle, checked against its manifest. Raises BundleError."""
    files = find_files(path, revision)
    check_digests(files, path)
    return read_files(files, path)


def check_digests(files: BundleFiles, path: str | Path) -> None:
    """Compare a bundle with its manifest. Raises BundleError naming the file that differs, is missing or not listed."""
    needed = [*(files.head / name for name in (CONFIG_FILE, WEIGHTS_FILE, SPACE_FILE)), files.metrics]
    needed += [files.root / name for name in (*LOCALIZER_FILES, *REGION_FILES)]
    remedy = "Delete it from the cache here and load the bundle again."
    if files.cases_fingerprint is None:
        needed += [files.card, *files.cases]
        remedy = f"Build it again, or accept an edit of your own: medssl accept --bundle {shlex.quote(str(path))}"
    if not check_manifest(files.root, needed, remedy):
        log.warning(
            "The bundle %s has no %s, as those of earlier versions: whether a file of it is damaged cannot be told. "
            "Build or publish it again.",
            path,
            MANIFEST_FILE,
        )


def read_files(files: BundleFiles, path: str | Path) -> Contents:
    """What the files of a bundle hold, each checked by itself and against the others. Raises BundleError."""
    head = load_head(files.head)
    try:
        cases = Dataset(without_paths(pa.concat_tables([pq.read_table(file) for file in files.cases])))
        card = files.card.read_text("utf-8") if files.card.is_file() else ""
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise BundleError(f"A file of bundle {path} cannot be read: {error}. Build it again.") from error
    metrics = read_json(files.metrics, f"{METRICS_FILE} of {path}", BundleError) if files.metrics.is_file() else {}
    check_metrics(metrics, f"{METRICS_FILE} of {path}")
    check_cases(cases, head.labels, head.embedding_dim, files.name)
    if files.cases_fingerprint and cases_fingerprint(split_cases(cases)) != files.cases_fingerprint:
        raise BundleError(
            f"The cases of {path} are not those that it was published with: damaged in the cache here, or changed on "
            "the Hub. Delete them from the cache and load again, or ask who published it to do so again."
        )
    localizer, regions = files.part(LOCALIZER), files.part(REGIONS)
    return Contents(
        files.name,
        head,
        cases,
        metrics,
        card,
        localizer and Localizer.from_pretrained(localizer),
        regions and RegionIndex.from_pretrained(regions),
        read_space(files.head / SPACE_FILE, head, path),
    )


def read_space(file: Path, head: Head, path: str | Path) -> CaseSpace | None:
    """The map of the space that the head's config names; None for the plain one. Raises BundleError."""
    name = head.reading.space
    if name == PLAIN:
        return None
    if not file.is_file():
        raise BundleError(
            f"The cases of {path} are compared in the {name} space, but {SPACE_FILE} with its map is not there. Build "
            "or download the bundle again."
        )
    return CaseSpace.load(file, name, head.embedding_dim)


def write_contents(contents: Contents, path: str | Path) -> Path:
    """Write a bundle as a folder, beside the old one and then in its place at once. Returns the folder.

    Raises BundleError where something else stands there, another process writes, or the disk does not take it.
    """
    folder = Path(path)
    with written(folder):
        write_locked(contents, folder)
    return folder


def change_contents(path: str | Path, change: Callable[[Contents], Contents]) -> None:
    """Read a bundle folder, change what it holds and write it, with nobody else writing in between.

    What `change` raises leaves the folder as it is. Raises BundleError, also for a published bundle.
    """
    if is_hub_id(path):
        raise BundleError(f"{str(path)!r} is no folder here. Change a bundle's folder, then publish it again.")
    folder = Path(path)
    with written(folder):
        write_locked(change(read_contents(folder)), folder)


def check_place(folder: Path) -> None:
    """Raises BundleError where no bundle may be written: at a file, or at a folder of other things."""
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"{folder} is a file; give a folder, new or a bundle's.")
    if folder.exists() and any(folder.iterdir()) and not is_bundle(folder):
        raise BundleError(f"{folder} exists, is not empty and is no bundle; give another place.")


def write_locked(contents: Contents, folder: Path) -> None:
    """Write a bundle beside its place and put it there; call it under the lock."""
    check_place(folder)
    sweep(folder)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}{NEW}", dir=folder.parent))
    try:
        write_files(beside, contents)
        put_in_place(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """The lock of a bundle folder, in which it is written; what the disk says becomes a BundleError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_of(folder):
            recover(folder)
            yield
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"The bundle cannot be written to {folder}: {getattr(error, 'strerror', None) or error}. Free some space "
            "or choose another place; what stood there before is as it was."
        ) from error


def is_bundle(folder: Path) -> bool:
    """Whether a bundle was written to this folder."""
    return (folder / "head" / CONFIG_FILE).is_file()


def sweep(folder: Path) -> None:
    """Delete what killed writers of this bundle left beside it; call it under the lock."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}{NEW}*"):
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder.with_name(f".{folder.name}{OLD}"), ignore_errors=True)


def write_files(folder: Path, contents: Contents) -> None:
    """Write every file of a bundle into a new folder, the manifest last, and have them on the disk."""
    contents.head.save_pretrained(folder / "head")
    if contents.space is not None:
        (folder / "head" / SPACE_FILE).write_bytes(contents.space.to_bytes())
    if contents.localizer is not None:
        contents.localizer.save_pretrained(folder / LOCALIZER)
    if contents.regions is not None:
        contents.regions.save_pretrained(folder / REGIONS)
    (folder / "cases").mkdir()
    contents.cases.to_parquet(str(folder / CASES_FILE))
    metrics = json.dumps(contents.metrics, indent=2, ensure_ascii=False) + "\n"
    (folder / METRICS_FILE).write_text(metrics, "utf-8")
    (folder / CARD_FILE).write_text(contents.card, "utf-8")
    write_manifest(folder)
    folder.chmod(0o755)
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Have a file or folder on the disk, where the system can be asked to."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def lock_of(folder: Path) -> Iterator[None]:
    """Be the only process that writes this bundle. Raises BundleError when another one does."""
    if fcntl is None:  # Windows: the last writer wins
        yield
        return
    file = folder.with_name(f".{folder.name}{LOCK}")
    while True:
        with file.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BundleError(
                    f"Another process is writing {folder}. Wait for it, or give another place."
                ) from error
            # The one before may have deleted the file between our opening and locking it.
            if not file.exists() or file.stat().st_ino != os.fstat(stream.fileno()).st_ino:
                continue
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
            return


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
    """Bring back the old bundle where a writer was killed between the two renames of `put_in_place`.

    Call it under the lock: a writer that is at work is no killed one.
    """
    old = folder.with_name(f".{folder.name}{OLD}")
    if is_bundle(old) and not folder.exists():
        old.rename(folder)
