"""SHA-256 of every file of a bundle, written last and checked at load: a flipped bit is an error, never an answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from medssl.errors import BundleError
from medssl.files import written_whole

MANIFEST_FILE = "manifest.json"
SCHEMA_VERSION = 1


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else plain(stream)


def plain(stream: object) -> str:
    """The SHA-256 of an open file, piece by piece: Python 3.10 has no `file_digest`."""
    digest = hashlib.sha256()
    while piece := stream.read(1 << 20):  # type: ignore[attr-defined]
        digest.update(piece)
    return digest.hexdigest()


def bundle_files(folder: Path) -> list[Path]:
    """The files of a bundle folder that a manifest lists, sorted."""
    every = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in every if path.name != MANIFEST_FILE and not path.name.startswith("."))


def as_manifest(digests: Mapping[str, str]) -> str:
    """A manifest as the text of its file."""
    values = {"schema_version": SCHEMA_VERSION, "sha256": dict(sorted(digests.items()))}
    return json.dumps(values, indent=2) + "\n"


def write_manifest(folder: Path) -> None:
    """Write the manifest of a bundle folder as it stands: after its last file, or after a file was changed by us."""
    digests = {path.relative_to(folder).as_posix(): digest_of(path) for path in bundle_files(folder)}
    with written_whole(folder / MANIFEST_FILE) as beside:
        beside.write_text(as_manifest(digests), "utf-8")


def read_manifest(path: Path) -> dict[str, str]:
    """The digests of a manifest by file. Raises BundleError where it is damaged."""
    try:
        values = json.loads(path.read_text("utf-8"))
        digests = values["sha256"]
        fine = isinstance(digests, dict) and all(isinstance(item, str) for pair in digests.items() for item in pair)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path} is damaged: {type(error).__name__}. Build or download the bundle again.") from error
    if not fine or values.get("schema_version") != SCHEMA_VERSION:
        raise BundleError(f"{path} is no manifest that this medssl reads. Update medssl, or build the bundle again.")
    outside = [name for name in digests if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if outside:
        raise BundleError(f"{path} names {outside[0]!r}, which lies outside the bundle.")
    return digests


def check_manifest(folder: Path, needed: Iterable[Path] = ()) -> bool:
    """Compare a bundle folder with its manifest; False where it has none, as bundles of earlier versions.

    `needed` are files that will be read, so that they must be listed. Raises BundleError naming the file that is
    missing, was changed, or is not listed.
    """
    place = folder / MANIFEST_FILE
    if not place.is_file():
        return False
    digests = read_manifest(place)
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path} is missing, but the bundle's manifest lists it. Build or download it again.")
        if digest_of(path) != digest:
            raise BundleError(
                f"{path} is not what the bundle's manifest says: damaged, or edited. Build or download the bundle "
                "again; after an edit of your own, write the manifest anew (medssl.bundle.manifest.write_manifest)."
            )
    for path in needed:
        if path.relative_to(folder).as_posix() not in digests:
            raise BundleError(f"{path} is not in the bundle's manifest, so nobody vouches for it. Remove it.")
    return True
