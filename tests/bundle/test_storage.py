"""A bundle folder is whole or refused: a flipped bit, a killed writer, a full disk, a second writer."""

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

try:
    import resource
except ImportError:
    resource = None

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from medssl.bundle import Bundle, storage
from medssl.bundle.manifest import MANIFEST_FILE, check_manifest, read_manifest, write_manifest
from medssl.bundle.storage import lock_of, write_contents
from medssl.errors import BundleError
from medssl.heads.head import Head
from tests import warm


@pytest.fixture
def folder(tiny_bundle_folders, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bundle_folders["shapes"], tmp_path / "bundle"))


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_every_file_is_in_the_manifest(folder):
    listed = set(read_manifest(folder / MANIFEST_FILE))
    assert listed == set(files_of(folder)) - {MANIFEST_FILE} and len(listed) >= 5
    assert check_manifest(folder)


def test_a_flipped_bit_anywhere_is_refused_by_the_files_name(folder):
    for name in files_of(folder):
        path = folder / name
        whole = path.read_bytes()
        for place in (len(whole) // 3, len(whole) - 2):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(BundleError, match=path.name.replace(".", r"\.") + "|lists it|manifest"):
                Bundle.load(folder)
        path.write_bytes(whole)
    assert Bundle.load(folder).labels


def test_missing_and_foreign_files_are_refused(folder):
    (folder / "metrics.json").rename(folder / "elsewhere")
    with pytest.raises(BundleError, match="metrics.json is missing"):
        Bundle.load(folder)
    (folder / "elsewhere").rename(folder / "metrics.json")
    shutil.copy(next(folder.glob("cases/*")), folder / "cases" / "more.parquet")
    with pytest.raises(BundleError, match="more.parquet is not in the bundle's manifest"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
        ("{}", "schema_version: field required"),
        ('{"schema_version": 1}', "sha256: field required"),
        ('{"schema_version": "1", "sha256": {}}', "schema_version is '1'"),
        ('{"schema_version": 1, "sha256": []}', r"sha256 is \[\]"),
        ('{"schema_version": 1, "sha256": {"README.md": 3}}', r"sha256\.README\.md is 3"),
        ('{"schema_version": 1, "sha256": {"../x": "y"}}', "'../x', which lies outside"),
        ('{"schema_version": 1, "sha256": {"/etc/passwd": "y"}}', "'/etc/passwd', which lies outside"),
        ('{"schema_version": 9, "sha256": {}}', "a schema that this medssl does not read"),
        ('{"schema_version": 1, "sha256": {}}', "is not in the bundle's manifest"),
    ],
)
def test_a_damaged_manifest_is_refused(folder, text, words):
    (folder / MANIFEST_FILE).write_text(text)
    with pytest.raises(BundleError, match=f"manifest.*{words}|{words}"):
        Bundle.load(folder)


def test_an_earlier_bundle_without_a_manifest_loads(folder):
    (folder / MANIFEST_FILE).unlink()
    assert not check_manifest(folder) and Bundle.load(folder).labels
    write_manifest(folder)
    assert check_manifest(folder)


def test_a_path_in_the_parquet_is_never_opened(folder, shapes_image, tmp_path):
    secret = tmp_path / "secret.png"
    shutil.copy(shapes_image, secret)
    place = next(folder.glob("cases/*.parquet"))
    table = pq.read_table(place)
    rows = [{"bytes": None, "path": str(secret)}] * len(table)
    column = table.column_names.index("image")
    pq.write_table(table.set_column(column, table.field("image"), pa.array(rows, table.field("image").type)), place)
    write_manifest(folder)
    bundle = Bundle.load(folder)
    cases = bundle.analyze(shapes_image, explain=False).cases
    assert cases and all(case.image is None for case in cases)
    assert bundle.cases[0]["image"] is None
    saved = bundle.save(tmp_path / "saved")
    (parquet,) = saved.glob("cases/*.parquet")
    assert pq.read_table(parquet).column("image").null_count == len(bundle.cases)


def contents_of(bundle: Bundle) -> storage.Contents:
    return storage.Contents(bundle.name, bundle.head, bundle.cases, {"new": True}, "card")


def test_two_writers_are_told_apart(folder, tiny_bundles):
    with lock_of(folder), pytest.raises(BundleError, match="Another process is writing"):
        write_contents(contents_of(tiny_bundles["shapes"]), folder)
    write_contents(contents_of(tiny_bundles["shapes"]), folder)
    assert json.loads((folder / "metrics.json").read_text()) == {"new": True}
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_a_place_that_cannot_be_written_is_a_sentence(tiny_bundles, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="cannot be written to"):
        write_contents(contents_of(tiny_bundles["shapes"]), tmp_path / "file" / "bundle")


@pytest.mark.parametrize(
    ("owner", "name", "number", "words"),
    [
        (Head, "save_pretrained", errno.ENOSPC, "No space left on device"),
        (Dataset, "to_parquet", errno.ENOSPC, "No space left on device"),
        (Path, "write_text", errno.ENOSPC, "No space left on device"),
        (os, "fsync", errno.EIO, "Input/output error"),
        (storage, "write_manifest", errno.EDQUOT, "Disk quota exceeded"),
        (storage.tempfile, "mkdtemp", errno.EROFS, "Read-only file system"),
        (Path, "mkdir", errno.EACCES, "Permission denied"),
        (Path, "open", errno.EACCES, "Permission denied"),
    ],
)
def test_a_full_disk_or_a_folder_that_is_read_only_is_a_sentence(
    folder, tiny_bundles, monkeypatch, owner, name, number, words
):
    before = {file: (folder / file).read_bytes() for file in files_of(folder)}

    def fails(*_, **__):
        raise OSError(number, os.strerror(number), "a file")

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, fails)
        with pytest.raises(BundleError, match=f"cannot be written to .*bundle: {words}.*as it was"):
            write_contents(contents_of(tiny_bundles["shapes"]), folder)
    assert {file: (folder / file).read_bytes() for file in files_of(folder)} == before
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["bundle"]


@pytest.mark.skipif(resource is None, reason="limits of a process are POSIX")
def test_a_disk_that_takes_no_more_is_a_sentence(folder):
    """Really full, for this process: no file may grow beyond some kilobytes."""
    code = (
        "import resource, signal, sys\n"
        "from medssl.bundle import Bundle\n"
        "from medssl.errors import BundleError\n"
        "bundle = Bundle.load(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "try: bundle.save(sys.argv[1])\n"
        "except BundleError as error: print(error)\n"
    )
    before = {file: (folder / file).read_bytes() for file in files_of(folder)}
    done = warm.run(["-c", code, folder])
    assert "cannot be written to" in done.stdout and "as it was" in done.stdout, done.stderr
    assert {file: (folder / file).read_bytes() for file in files_of(folder)} == before


def test_a_bundle_left_half_replaced_in_a_read_only_folder_is_a_sentence(folder, monkeypatch):
    folder.rename(folder.with_name(".bundle.old"))

    def fails(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fails)
        with pytest.raises(BundleError, match="left half replaced.*Read-only file system.*writable"):
            Bundle.load(folder)
    assert Bundle.load(folder).labels


def test_killed_between_the_renames_the_old_bundle_is_found_again(folder, tiny_bundles, monkeypatch):
    """Where folders cannot be exchanged in one step."""
    monkeypatch.setattr(storage, "exchanged", lambda *_: False)
    rename = Path.rename

    def killed(self, target):
        if self.name.startswith(".bundle.") and Path(target).name == "bundle" and self.name != ".bundle.old":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    before = (folder / "metrics.json").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_contents(contents_of(tiny_bundles["shapes"]), folder)
    monkeypatch.setattr(Path, "rename", rename)
    assert not folder.exists()
    assert Bundle.load(folder).labels and (folder / "metrics.json").read_bytes() == before


def test_killed_at_any_moment_there_is_a_whole_bundle(folder, tmp_path):
    code = (
        "import sys\n"
        "from medssl.bundle import Bundle\n"
        "bundle = Bundle.load(sys.argv[1]); print('ready', flush=True)\n"
        "while True: bundle.save(sys.argv[1]); print('saved', flush=True)\n"
    )
    for delay in (0.0, 0.03, 0.07):
        process = warm.start(["-c", code, folder], stdout=subprocess.PIPE)
        assert process.stdout.readline().strip() == "ready" and process.stdout.readline().strip() == "saved"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert Bundle.load(folder).labels and check_manifest(folder)
