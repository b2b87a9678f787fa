"""Libraries in a folder: built once, opened by several, whole after a kill at any moment, never read from pickles."""

import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from medssl.errors import LibraryError
from medssl.library import shard_store
from medssl.library.library import CaseLibrary
from tests import warm
from tests.library.test_library import make_dataset, random_cases, reference

ROOT = Path(__file__).resolve().parents[2]


def shards(folder) -> set[str]:
    return {place.name for place in Path(folder).iterdir() if place.is_dir()}


def clustered_cases(count=3000, width=32):
    """Embeddings round 20 centers, ten to a group."""
    random = np.random.default_rng(3)
    groups = np.arange(count) // 10
    of_group = random.normal(size=(20, width))[groups % 20] + 0.7 * random.normal(size=(count // 10, width))[groups]
    vectors = of_group + 0.3 * random.normal(size=(count, width))
    return vectors.astype(np.float32), [f"group-{number}" for number in groups]


def test_a_folder_is_built_once_and_anew_after_a_change(tmp_path, monkeypatch):
    vectors, groups = random_cases(80)
    with CaseLibrary(make_dataset(vectors, groups), str(tmp_path)) as library:
        built, found = library.collection, library.search(vectors[5], 6)
    with monkeypatch.context() as patch:
        patch.setattr(shard_store, "write_shard", None)  # would fail if it were built again
        with CaseLibrary(make_dataset(vectors, groups), str(tmp_path)) as library:
            assert library.collection == built
            assert library.search(vectors[5], 6) == found
    changed = np.vstack([vectors[1:], vectors[:1] + 1])
    with CaseLibrary(make_dataset(changed, groups), str(tmp_path)) as library:
        rebuilt = library.collection
        assert rebuilt != built
        assert library.search(changed[7], 1)[0].id == "case-7"
    assert shards(tmp_path) == {rebuilt}


def test_other_groups_of_the_same_vectors_are_another_library(tmp_path):
    vectors, groups = random_cases(40)
    with CaseLibrary(make_dataset(vectors, groups), str(tmp_path)) as library:
        built = library.collection
    with CaseLibrary(make_dataset(vectors, groups[::-1]), str(tmp_path)) as library:
        assert library.collection != built
        assert groups[39 - 3] not in {case.group_id for case in library.search(vectors[3], 40, groups[39 - 3])}


def test_two_libraries_share_a_folder(tmp_path):
    vectors, _ = random_cases(30)
    lung = CaseLibrary(make_dataset(vectors), str(tmp_path), name="lung")
    eye = CaseLibrary(make_dataset(vectors[::-1]), str(tmp_path / ".." / tmp_path.name), name="eye")
    again = CaseLibrary(make_dataset(vectors[:9]), str(tmp_path), name="lung")
    assert lung._store is eye._store is again._store
    assert lung.search(vectors[2], 1)[0].id == "case-2"  # still searchable after its name went to a newer one
    assert eye.search(vectors[2], 1)[0].id == "case-27"
    assert again.search(vectors[2], 1)[0].id == "case-2"
    for library in (lung, eye, again):
        library.close()
    with pytest.raises(LibraryError, match="closed"):
        eye.search(vectors[2], 1)


def test_the_graph_finds_what_a_scan_finds_without_the_excluded(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_store, "EXACT_UP_TO", 1000)
    vectors, groups = clustered_cases()
    random = np.random.default_rng(5)
    found = []
    with CaseLibrary(make_dataset(vectors, groups), str(tmp_path)) as library:
        facts = library._store.open[library.collection].facts
        assert facts.width in shard_store.WIDTHS and facts.lowest_recall >= 0.99
        for number in range(100):
            row = int(random.integers(len(vectors)))
            query = vectors[row] + 0.1 * random.normal(size=vectors.shape[1]).astype(np.float32)
            group, own = (groups[row], None) if number % 2 else (None, f"case-{row}")
            excluded = {row} if own else {index for index, name in enumerate(groups) if name == group}
            cases = library.search(query, 10, exclude_group=group, exclude_id=own)
            order, scores = reference(vectors, query, 10, excluded)
            rows = [int(case.id.removeprefix("case-")) for case in cases]
            assert len(rows) == 10 and not set(rows) & excluded
            assert [case.score for case in cases] == sorted((case.score for case in cases), reverse=True)
            found.append(len(set(rows) & set(order)) / 10)
            for row, case in zip(rows, cases, strict=True):  # the scores are those of float64, whatever the graph says
                unit = vectors[row].astype(np.float64) / np.linalg.norm(vectors[row].astype(np.float64))
                assert case.score == pytest.approx(unit @ query / np.linalg.norm(query.astype(np.float64)), abs=1e-12)
    assert np.mean(found) >= 0.99


def test_a_search_is_wide_enough_for_those_of_other_groups(tmp_path, monkeypatch):
    """A query's own group is found at any width; the others lie about equally far."""
    monkeypatch.setattr(shard_store, "EXACT_UP_TO", 1000)
    monkeypatch.setattr(shard_store, "WIDTHS", (10, 512))
    random = np.random.default_rng(3)
    numbers = np.arange(4000) // 10
    centers = random.normal(size=(numbers[-1] + 1, 96))
    vectors = (centers[numbers] + 0.2 * random.normal(size=(len(numbers), 96))).astype(np.float32)
    groups = [f"group-{number}" for number in numbers]
    shares: dict[str, list[float]] = {"own": [], "others": []}
    with CaseLibrary(make_dataset(vectors, groups), str(tmp_path)) as library:
        store, place = library._store, library.collection
        assert store.open[place].facts.width == 512 and store.open[place].facts.lowest_recall >= 0.99
        for row in random.choice(len(vectors), 60, replace=False):
            query = vectors[row] + 0.1 * random.normal(size=96).astype(np.float32)
            own = {index for index, number in enumerate(numbers) if number == numbers[row]}
            order, _ = reference(vectors, query, 10, own)
            found = {int(case.id.removeprefix("case-")) for case in library.search(query, 10, groups[row])}
            shares["others"].append(len(found & set(order)) / 10)
            found = {int(case.id.removeprefix("case-")) for case in library.search(query, 10)}
            shares["own"].append(len(found & own) / 10)
    assert np.mean(shares["others"]) >= 0.99 and np.mean(shares["own"]) >= 0.99


def test_where_no_graph_is_good_enough_all_cases_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_store, "EXACT_UP_TO", 500)
    monkeypatch.setattr(shard_store, "WIDTHS", ())
    vectors, groups = clustered_cases(1000)
    with CaseLibrary(make_dataset(vectors, groups), str(tmp_path)) as library:
        assert library._store.open[library.collection].facts.width is None
        order, _ = reference(vectors, vectors[7], 30, set())
        assert [case.id for case in library.search(vectors[7], 30)] == [f"case-{row}" for row in order]


def test_exact_rows_are_those_of_a_full_sort(monkeypatch):
    monkeypatch.setattr(shard_store, "BLOCK", 7)
    vectors = shard_store.unit_rows(np.random.default_rng(0).normal(size=(60, 5)))
    expected = np.argsort(-(vectors[:9] @ vectors.T), axis=1, kind="stable")[:, :4]
    assert shard_store.exact_rows(vectors, vectors[:9], 4) == expected.tolist()
    groups = np.arange(60) // 20
    found = shard_store.exact_rows(vectors, vectors[:9], 4, (groups, groups[:9]))
    assert found == [
        [row for row in order if row >= 20][:4] for order in np.argsort(-(vectors[:9] @ vectors.T), axis=1)
    ]
    assert shard_store.exact_rows(vectors[:20], vectors[:2], 4, (groups[:20], groups[:2])) == [[], []]
    assert shard_store.recall_of([[1, 2], [], [3, 4]], [{1, 2}, set(), {4}]) == 0.75


@pytest.mark.parametrize("harm", ["facts", "segment", "missing", "count"])
def test_a_damaged_shard_is_built_anew(harm, tmp_path, caplog):
    vectors, groups = random_cases(80)
    with CaseLibrary(make_dataset(vectors, groups), str(tmp_path)) as library:
        place = tmp_path / library.collection
    segment = next((place / "shard" / "segments").iterdir()) / "segment.json"
    if harm == "facts":
        (place / "facts.json").write_text("{broken")
    elif harm == "segment":
        segment.write_text("{broken")
    elif harm == "missing":
        (place / "shard").rename(place / "elsewhere")
    else:
        (place / "facts.json").write_text(json.dumps({"cases": 79, "dimension": 24}))
    with caplog.at_level(logging.WARNING), CaseLibrary(make_dataset(vectors, groups), str(tmp_path)) as library:
        assert len(library.search(vectors[0], 500)) == 80
    assert "is damaged and is built anew" in caplog.text


def test_an_interrupted_build_leaves_what_was_there(tmp_path, monkeypatch):
    vectors, groups = random_cases(80)
    with CaseLibrary(make_dataset(vectors, groups), str(tmp_path)) as library:
        built = library.collection

    def interrupted(place, cases):
        place.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shard_store, "write_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            CaseLibrary(make_dataset(vectors[::-1].copy(), groups), str(tmp_path))
    assert shards(tmp_path) == {built}


BUILD = """
import sys
from medssl.library import shard_store
from tests.library.test_library import make_dataset
from tests.library.test_shard_store import clustered_cases
from medssl.library.library import CaseLibrary
shard_store.EXACT_UP_TO = 1000
dataset = make_dataset(*clustered_cases())
print("begins", flush=True)
library = CaseLibrary(dataset, sys.argv[1])
print("built", flush=True)
sys.stdin.read()
"""


def begin(folder) -> subprocess.Popen:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


KILLS = """
import os, signal, sys, time
from medssl.library import shard_store
from tests.library.test_library import make_dataset
from tests.library.test_shard_store import clustered_cases
from medssl.library.library import CaseLibrary
shard_store.EXACT_UP_TO = 1000
dataset = make_dataset(*clustered_cases())

def begin(folder):
    process = os.fork()
    if not process:
        CaseLibrary(dataset, folder)
        os._exit(0)
    return process

started = time.monotonic()
assert os.waitpid(begin(sys.argv[1] + "/timed"), 0)[1] == 0
whole = time.monotonic() - started
killed = 0
for number in range(20):
    process = begin(sys.argv[1] + "/killed")
    time.sleep(whole * (number + 0.5) / 20)
    os.kill(process, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(process, 0)[1])
print(killed)
"""


def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path, monkeypatch):
    """Twenty kills, spread over a whole build; each build meets the folder as the last one left it."""
    monkeypatch.setattr(shard_store, "EXACT_UP_TO", 1000)
    kills = warm.run(["-c", KILLS, tmp_path])
    assert int(kills.stdout) >= 10, kills.stderr
    vectors, groups = clustered_cases()
    with CaseLibrary(make_dataset(vectors, groups), str(tmp_path / "killed")) as library:
        cases = library.search(vectors[0], 1000)
        assert len({case.id for case in cases}) == len(cases) == 1000
        assert library._store.open[library.collection].shard.count(shard_store.engine.CountRequest()) == len(vectors)
        assert shards(tmp_path / "killed") == {library.collection}


def test_two_processes_build_and_search_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_store, "EXACT_UP_TO", 1000)
    vectors, groups = clustered_cases()
    others = [begin(tmp_path), begin(tmp_path)]
    try:
        for other in others:
            assert (other.stdout.readline(), other.stdout.readline()) == ("begins\n", "built\n")
        with CaseLibrary(make_dataset(vectors, groups), str(tmp_path)) as library:
            held, order = library.collection, reference(vectors, vectors[4], 5, set())[0]
            assert [case.id for case in library.search(vectors[4], 5)] == [f"case-{row}" for row in order]
        # Other cases under the same name: what others still search stays until they are gone.
        with CaseLibrary(make_dataset(vectors[:50], groups[:50]), str(tmp_path)) as library:
            assert shards(tmp_path) == {held, library.collection}
    finally:
        complaints = [other.communicate("", timeout=60)[1] for other in others]
    assert not any("Traceback" in complaint for complaint in complaints)
    with CaseLibrary(make_dataset(vectors[:40], groups[:40]), str(tmp_path)) as library:
        assert shards(tmp_path) == {library.collection}


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["MEDSSL_TEST_TRAP"],)


def test_a_folder_of_the_old_local_mode_is_refused_unread_and_rebuilt(tmp_path, monkeypatch, caplog):
    folder, trap = tmp_path / "old", tmp_path / "sprung"
    monkeypatch.setenv("MEDSSL_TEST_TRAP", str(trap))
    client = QdrantClient(path=str(folder))
    client.create_collection("cases", vectors_config=models.VectorParams(size=3, distance=models.Distance.DOT))
    client.upsert("cases", [models.PointStruct(id=0, vector=[1.0, 0.0, 0.0], payload={"trap": "here"})])
    client.close()
    (folder / "collection" / "trap.pickle").write_bytes(pickle.dumps(Trap()))
    with caplog.at_level(logging.WARNING), CaseLibrary(make_dataset(np.eye(3)), str(folder)) as library:
        assert library.search(np.eye(3)[2], 1)[0].id == "case-2"
    assert "kept in pickles" in caplog.text and "delete meta.json and collection" in caplog.text
    assert not trap.exists()


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LibraryError, match="deleting it loses nothing"):
        CaseLibrary(make_dataset(np.eye(3)), str(tmp_path / "file" / "inside"))
