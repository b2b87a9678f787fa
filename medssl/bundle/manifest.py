"""SHA-256 of every file of a bundle, written last and checked at load: a flipped bit is an error, never an answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from medssl.errors import BundleError
from medssl.files import digest_of, written_whole
from medssl.hub.pull import MANIFEST_FILE
from medssl.shapes import check_shape, read_json

SCHEMA_VERSION = 1


class Manifest(TypedDict):
    """The content of a manifest: digests by a file's name relative to the bundle."""

    schema_version: int
    sha256: dict[str, str]


SHAPE = TypeAdapter(Manifest)


def manifest_of(files: Mapping[str, Path | bytes]) -> str:
    """The text of the manifest of these files."""
    digests = {name: digest_of(content) for name, content in sorted(files.items())}
    return json.dumps({"schema_version": SCHEMA_VERSION, "sha256": digests}, indent=2) + "\n"


def bundle_files(folder: Path) -> dict[str, Path]:
    """The files of a bundle folder that a manifest lists, by name."""
    every = (path for path in folder.rglob("*") if path.is_file())
    listed = (path for path in every if path.name != MANIFEST_FILE and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path for path in listed}


def write_manifest(folder: Path) -> None:
    """Write the manifest of a bundle folder as it stands: after its last file, or after a file was changed by us."""
    text = manifest_of(bundle_files(folder))
    with written_whole(folder / MANIFEST_FILE) as beside:
        beside.write_text(text, "utf-8")


def read_manifest(path: Path) -> dict[str, str]:
    """The digests of a manifest by file. Raises BundleError where it is damaged."""
    file = f"The manifest {path}"
    values = read_json(path, file, BundleError)
    check_shape(SHAPE, values, file, BundleError)
    if values["schema_version"] != SCHEMA_VERSION:
        raise BundleError(f"{file} has a schema that this medssl does not read. Update medssl, or build again.")
    outside = [name for name in values["sha256"] if PurePosixPath(name).is_absolute() or ".." in name.split("/")]
    if outside:
        raise BundleError(f"{file} names {outside[0]!r}, which lies outside the bundle.")
    return values["sha256"]


def changed_files(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """The files that are not as these digests say: changed, or gone."""
    return [
        name for name, digest in digests.items() if not (folder / name).is_file() or digest_of(folder / name) != digest
    ]


def check_manifest(folder: Path, needed: Iterable[Path] = (), remedy: str = "Build it again.") -> bool:
    """Compare a bundle folder with its manifest; False where it has none, as bundles of earlier versions.

    `needed` are files that will be read, so that they must be listed; `remedy` ends the message. Raises BundleError
    naming the file that is missing, was changed, or is not listed.
    """
    manifest = folder / MANIFEST_FILE
    if not manifest.is_file():
        return False
    digests = read_manifest(manifest)
    for name in changed_files(folder, digests):
        if not (folder / name).is_file():
            raise BundleError(f"{folder / name} is missing, but the bundle's manifest lists it. {remedy}")
        raise BundleError(f"{folder / name} is not what the bundle's manifest says: damaged, or edited. {remedy}")
    for path in needed:
        if path.is_file() and path.relative_to(folder).as_posix() not in digests:
            raise BundleError(f"{path} is not in the bundle's manifest, so nobody vouches for it. {remedy}")
    return True
