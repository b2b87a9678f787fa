"""Edits of a bundle's text files by hand, which its manifest refuses until they are accepted."""

from __future__ import annotations

from pathlib import Path

from medssl.bundle.manifest import MANIFEST_FILE, bundle_files, changed_files, read_manifest, write_manifest
from medssl.bundle.storage import find_files, lock_of, read_files
from medssl.errors import BundleError
from medssl.hub.pull import CARD_FILE, CONFIG_FILE, METRICS_FILE, is_hub_id

EDITABLE = (CARD_FILE, METRICS_FILE, f"head/{CONFIG_FILE}")


def accept_edits(path: str | Path) -> list[str]:
    """Write a bundle folder's manifest anew after its text files were edited by hand. Returns the files' names.

    Raises BundleError where another file differs (weights and cases are not edited by hand, so they are damaged),
    where the edited files make no bundle, or where the folder cannot be written.
    """
    if is_hub_id(path):
        raise BundleError(f"{str(path)!r} is no folder here. An edited card on the Hub needs no accepting.")
    files, folder = find_files(path), Path(path)
    try:
        with lock_of(folder):
            manifest = folder / MANIFEST_FILE
            digests = read_manifest(manifest) if manifest.is_file() else {}
            unlisted = [name for name in bundle_files(folder) if name not in digests] if digests else []
            edited = sorted([*changed_files(folder, digests), *unlisted])
            refused = [name for name in edited if name not in EDITABLE or not (folder / name).is_file()]
            if refused:
                raise BundleError(
                    f"{folder / refused[0]} is not what the bundle's manifest says, and is no text that is edited by "
                    f"hand ({', '.join(EDITABLE)} are). Build the bundle again."
                )
            read_files(files, path)
            write_manifest(folder)
    except OSError as error:
        raise BundleError(f"The manifest of {folder} cannot be written: {error.strerror or error}.") from error
    return edited
