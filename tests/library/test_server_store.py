"""Libraries on a server, against a stand-in that speaks its calls: filled, resumed, searched, replaced."""

from pathlib import Path

import numpy as np
import pytest

from medssl.errors import LibraryError
from medssl.library import server_store
from medssl.library.library import CaseLibrary
from medssl.library.server_store import ServerSettings, ServerStore
from tests import warm
from tests.library.stand_in import running
from tests.library.test_library import make_dataset, random_cases, reference

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server():
    with running() as (state, url):
        yield state, url


def test_answers_are_those_of_numpy(server):
    _, url = server
    vectors, groups = random_cases(200)
    with CaseLibrary(make_dataset(vectors, groups), url) as library:
        for row in range(0, 200, 9):
            group, own = ((None, None), (groups[row], None), ("large", f"case-{row}"))[row % 3]
            excluded = {index for index, name in enumerate(groups) if name == group} | ({row} if own else set())
            found = library.search(vectors[row], 12, exclude_group=group, exclude_id=own)
            order, scores = reference(vectors, vectors[row], 12, excluded)
            assert [case.id for case in found] == [f"case-{index}" for index in order]
            np.testing.assert_allclose([case.score for case in found], scores, atol=1e-9)


def test_a_collection_is_made_as_asked_and_holds_numbers_only(server):
    state, url = server
    settings = ServerSettings(shards=3, replicas=2, quantization="int8", on_disk=True, degree=32)
    vectors, groups = random_cases(60)
    store = ServerStore(url, settings=settings)
    with CaseLibrary(make_dataset(vectors, groups), store, "lung") as library:
        found = state.collections[library.collection]
    assert state.aliases == {"lung": library.collection}
    made = found["made"]
    assert (made["shard_number"], made["replication_factor"], made["hnsw_config"]["m"]) == (3, 2, 32)
    assert made["quantization_config"]["scalar"]["type"] == "int8" and made["vectors"]["on_disk"] is True
    assert found["indexes"] == [{"field_name": "group", "field_schema": "integer"}]
    assert all(
        list(payload) == ["group"] and isinstance(payload["group"], int) for _, payload in found["points"].values()
    )
    facts = ServerStore(url).describe("lung")[library.collection]
    assert (facts["cases"], facts["shards"], facts["quantization"], facts["in use"]) == (60, 3, "scalar", True)


def test_it_is_filled_once_and_replaced_by_other_cases(server):
    state, url = server
    vectors, groups = random_cases(60)
    with CaseLibrary(make_dataset(vectors, groups), url) as library:
        first = library.collection
    state.calls.clear()
    with CaseLibrary(make_dataset(vectors, groups), url) as library:
        assert library.collection == first
    assert not any(call.startswith("PUT") for call in state.calls)
    with CaseLibrary(make_dataset(vectors[:50], groups[:50]), url) as library:
        assert set(state.collections) == {library.collection} != {first}


def test_an_interrupted_upload_goes_on_where_it_was(server):
    state, url = server
    vectors, groups = random_cases(400)

    def stop(done, total):
        if done >= 200:
            raise KeyboardInterrupt

    settings = ServerSettings(batch=50, parallel=1)
    with pytest.raises(KeyboardInterrupt):
        CaseLibrary(make_dataset(vectors, groups), ServerStore(url, settings=settings, progress=stop))
    sent = len(next(iter(state.collections.values()))["points"])
    assert 200 <= sent < 400 and not state.aliases
    state.calls.clear()
    with CaseLibrary(make_dataset(vectors, groups), ServerStore(url, settings=settings)) as library:
        assert len(library.search(vectors[0], 500)) == 400
    batches = [call for call in state.calls if call.startswith("PUT") and call.endswith("/points")]
    assert len(batches) == (400 - sent) / 50


def test_a_busy_server_is_asked_again(server, monkeypatch):
    from qdrant_client.http.exceptions import ResponseHandlingException

    _, url = server
    monkeypatch.setattr(server_store, "PAUSE", 0.01)
    store, failures = ServerStore(url), []
    upsert = store.client.upsert

    def sometimes(*given, **options):
        if len(failures) < 3:
            failures.append(1)
            raise ResponseHandlingException(OSError("busy"))
        return upsert(*given, **options)

    monkeypatch.setattr(store.client, "upsert", sometimes)
    with CaseLibrary(make_dataset(*random_cases(40)), store) as library:
        assert len(library.search(np.ones(24), 50)) == 40


def test_many_cases_are_searched_through_the_graph_and_scored_again(server, monkeypatch):
    _, url = server
    monkeypatch.setattr(server_store, "EXACT_UP_TO", 50)
    vectors, groups = random_cases(90)
    with CaseLibrary(make_dataset(vectors, groups), url) as library:
        asked, query = [], library._store.client.query_points
        monkeypatch.setattr(library._store.client, "query_points", lambda *a, **o: asked.append(o) or query(*a, **o))
        found = library.search(vectors[3], 6, exclude_id="case-3")
    order, _ = reference(vectors, vectors[3], 6, {3})
    assert [case.id for case in found] == [f"case-{row}" for row in order]
    params = asked[0]["search_params"]
    assert not params.exact and params.hnsw_ef >= server_store.WIDTH and params.quantization.rescore


@pytest.mark.parametrize("settings", [{"shards": 0}, {"parallel": -1}, {"quantization": "int4"}])
def test_settings_that_there_are_not(settings):
    with pytest.raises(LibraryError, match="llowed"):
        ServerSettings(**settings)


KILLS = """
import os, signal, sys, time
from medssl.library.library import CaseLibrary
from medssl.library.server_store import ServerSettings, ServerStore
from tests.library.test_library import make_dataset, random_cases
dataset = make_dataset(*random_cases(600))
killed = 0
for number in range(20):
    process = os.fork()
    if not process:
        CaseLibrary(dataset, ServerStore(sys.argv[1], settings=ServerSettings(batch=10, parallel=2)))
        os._exit(0)
    time.sleep(0.05 * number)
    os.kill(process, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(process, 0)[1])
print(killed)
"""


def test_killed_at_any_moment_nothing_is_lost_or_doubled():
    """Twenty pushes killed one after the other, each a little later than the last; then one that ends."""
    vectors, groups = random_cases(600)
    with running(pause=0.05) as (state, url):
        kills = warm.run(["-c", KILLS, url])
        assert int(kills.stdout) >= 10, kills.stderr
        with CaseLibrary(make_dataset(vectors, groups), url) as library:
            assert sorted(state.points(library.collection)) == list(range(600))
            assert len({case.id for case in library.search(vectors[0], 600)}) == 600
            assert set(state.collections) == {library.collection}
