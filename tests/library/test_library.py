"""CaseLibrary against a plain numpy search, in memory and in a folder, and where neither can be had."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from medssl.errors import LibraryError
from medssl.library import library as library_module
from medssl.library.library import CaseLibrary
from medssl.library.vectors import Exclusion

LABELS = ["benign", "malignant"]


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MEDSSL_QDRANT_URL", raising=False)
    monkeypatch.delenv("MEDSSL_QDRANT_API_KEY", raising=False)


def make_dataset(vectors, groups=None, ids=None, images=None) -> Dataset:
    count, width = np.shape(vectors)
    features = Features(
        id=Value("string"),
        image=ImageFeature(),
        label=ClassLabel(names=LABELS),
        split=Value("string"),
        group_id=Value("string"),
        source=Value("string"),
        embedding=List(Value("float32"), length=width),
    )
    columns = {
        "id": ids or [f"case-{row}" for row in range(count)],
        "image": images or [None] * count,
        "label": [row % 2 for row in range(count)],
        "split": ["train"] * count,
        "group_id": groups or [f"group-{row}" for row in range(count)],
        "source": [f"source-{row % 3}" for row in range(count)],
        "embedding": list(np.asarray(vectors, np.float32)),
    }
    return Dataset.from_dict(columns, features=features)


def random_cases(count=400, width=24, seed=0):
    random = np.random.default_rng(seed)
    # A common direction, as real embeddings have, and one group larger than any top_k used here.
    vectors = (random.normal(size=(count, width)) + 1).astype(np.float32) * random.uniform(0.2, 9, (count, 1))
    groups = [f"group-{number}" for number in random.integers(0, count // 8, count)]
    groups[: count // 5] = ["large"] * (count // 5)
    return vectors.astype(np.float32), groups


def reference(vectors, query, top_k, excluded):
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    scores = unit @ (query.astype(np.float64) / np.linalg.norm(query.astype(np.float64)))
    order = [row for row in np.argsort(-scores, kind="stable") if row not in excluded][:top_k]
    return order, scores[order]


def png(color) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), color).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_same_cases_scores_and_order_as_numpy(place, tmp_path):
    vectors, groups = random_cases()
    random = np.random.default_rng(1)
    with CaseLibrary(make_dataset(vectors, groups), ":memory:" if place == "memory" else str(tmp_path)) as library:
        assert len(library) == len(vectors)
        for number in range(60):
            row = int(random.integers(len(vectors)))
            query = vectors[row] + random.normal(size=vectors.shape[1]).astype(np.float32) * 0.1
            group = [None, groups[row], "large", "unknown group"][number % 4]
            own = f"case-{row}" if number % 3 == 0 else None
            top_k = (1, 6, 50, 397, 2000)[number % 5]
            excluded = {index for index, name in enumerate(groups) if name == group} | ({row} if own else set())
            found = library.search(query, top_k, exclude_group=group, exclude_id=own)
            order, scores = reference(vectors, query, top_k, excluded)
            assert [case.id for case in found] == [f"case-{index}" for index in order]
            np.testing.assert_allclose([case.score for case in found], scores, atol=1e-5)
            unit = query / np.linalg.norm(query)
            raw = library._store.query(library.collection, unit, len(vectors), Exclusion())
            expected = reference(vectors, query, len(vectors), set())[1]
            np.testing.assert_allclose([hit.score for hit in raw], expected, atol=1e-5)


def test_a_case_brings_its_own_label_group_source_and_picture():
    pictures = [{"bytes": png("red"), "path": None}, None, {"bytes": b"not a picture", "path": None}]
    library = CaseLibrary(make_dataset(np.eye(3), ["a", "b", "c"], images=pictures))
    first, second, third = (library.search(query, 1)[0] for query in np.eye(3))
    assert (first.id, first.label, first.group_id, first.source) == ("case-0", "benign", "a", "source-0")
    assert (second.label, second.group_id, second.source) == ("malignant", "b", "source-1")
    assert first.score == pytest.approx(1)
    assert first.image.mode == "RGB" and first.image.size == (4, 3) and first.image.getpixel((0, 0)) == (255, 0, 0)
    assert second.image is None and third.image is None


def test_a_case_is_found_by_its_id_with_the_score_that_search_gives():
    vectors, _ = random_cases(30)
    library = CaseLibrary(make_dataset(vectors))
    query = vectors[3] + 0.1
    for case in library.search(query, 5):
        found = library.find(case.id, query)
        assert found == case and np.array_equal(found.embedding, vectors[int(case.id.split("-")[1])])
    with pytest.raises(LibraryError, match="no case 'nobody' among the 30"):
        library.find("nobody", query)


def test_ties_come_in_row_order_also_at_the_edge_and_behind_exclusions():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, 17)).astype(np.float32)
    vectors[40:240] = vectors[40]
    groups = ["left out" if 40 <= row < 90 else "kept" for row in range(300)]
    library = CaseLibrary(make_dataset(vectors, groups))
    found = library.search(vectors[40] * 3, 7, exclude_group="left out")
    assert [case.id for case in found] == [f"case-{row}" for row in range(90, 97)]
    assert len({case.score for case in found}) == 1


def test_fewer_or_no_cases_left():
    vectors, _ = random_cases(20)
    library = CaseLibrary(make_dataset(vectors, ["one"] * 15 + ["two"] * 5))
    assert [case.group_id for case in library.search(vectors[0], 50, exclude_group="one")] == ["two"] * 5
    alone = CaseLibrary(make_dataset(vectors, ["one"] * 20))
    assert alone.search(vectors[0], 5, exclude_group="one") == []
    with pytest.raises(LibraryError, match="left out"):
        alone.familiarity(vectors[0], exclude_group="one")


def test_familiarity_is_the_mean_of_the_nearest():
    vectors, groups = random_cases(50)
    library = CaseLibrary(make_dataset(vectors, groups))
    scores = reference(vectors, vectors[3], 5, {3})[1]
    assert library.familiarity(vectors[3], exclude_id="case-3") == pytest.approx(scores.mean(), abs=1e-6)
    assert library.familiarity(vectors[3], k=1) == pytest.approx(1, abs=1e-6)


def test_all_rows_of_one_id_are_left_out():
    library = CaseLibrary(make_dataset(np.eye(4)[[0, 0, 1, 2]], ids=["twin", "twin", "b", "c"]))
    assert [case.id for case in library.search(np.eye(4)[0], 4, exclude_id="twin")] == ["b", "c"]


def test_a_selection_of_a_data_set_is_searched_by_its_own_rows():
    vectors, groups = random_cases(60)
    rows = list(range(59, 0, -3))
    library = CaseLibrary(make_dataset(vectors, groups).select(rows))
    assert library.search(vectors[rows[4]], 1)[0].id == f"case-{rows[4]}"


def test_libraries_in_memory_do_not_mix_and_leave_nothing_behind():
    first = CaseLibrary(make_dataset(np.eye(3)), name="same")
    second = CaseLibrary(make_dataset(np.eye(5)), name="same")
    client = first._store.client
    assert second._store.client is client
    assert (len(first.search(np.ones(3), 9)), len(second.search(np.ones(5), 9))) == (3, 5)
    gone = second.collection
    assert client.collection_exists(gone)
    del second
    assert not client.collection_exists(gone)
    first.close()
    with pytest.raises(LibraryError, match="closed"):
        first.search(np.ones(3))
    first.close()


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_searching_from_many_threads_while_others_build(place, tmp_path):
    location = ":memory:" if place == "memory" else str(tmp_path)
    vectors, groups = random_cases(300)
    if place == "folder":  # reopened, so that the stored vectors are as read from disk
        CaseLibrary(make_dataset(vectors, groups), location).close()
    library = CaseLibrary(make_dataset(vectors, groups), location)
    expected = [reference(vectors, query, 6, set())[0] for query in vectors]
    start = threading.Barrier(8)
    built = []

    def ask(worker):
        start.wait()
        if worker >= 6:
            for number in range(3):
                built.append(CaseLibrary(make_dataset(vectors[:50]), location, name=f"other-{worker}-{number}"))
        return [
            [int(case.id.removeprefix("case-")) for case in library.search(vectors[row], 6)]
            for row in range(worker, 300, 8)
        ]

    with ThreadPoolExecutor(8) as pool:
        for worker, answers in enumerate(pool.map(ask, range(8))):
            assert answers == expected[worker::8]
    for other in built:
        assert len(other.search(vectors[0], 100)) == 50
        other.close()
    library.close()


def test_a_server_that_is_not_there():
    with pytest.raises(LibraryError, match=r"127\.0\.0\.1:1 does not answer"):
        CaseLibrary(make_dataset(np.eye(3)), "http://127.0.0.1:1", timeout=2)


def test_the_server_is_taken_from_the_environment(monkeypatch):
    monkeypatch.setenv("MEDSSL_QDRANT_URL", "http://127.0.0.1:1")
    with pytest.raises(LibraryError, match="MEDSSL_QDRANT_URL"):
        CaseLibrary(make_dataset(np.eye(3)), timeout=2)
    assert len(CaseLibrary(make_dataset(np.eye(3)), ":memory:")) == 3


def test_a_place_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LibraryError, match="cannot be opened"):
        CaseLibrary(make_dataset(np.eye(3)), str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("embedding", "top_k", "message"),
    [
        (np.ones(4), 6, "shape"),
        (np.ones((1, 3)), 6, "shape"),
        ([1, np.nan, 0], 6, "not finite"),
        ([1, np.inf, 0], 6, "not finite"),
        (np.zeros(3), 6, "all zero"),
        (["a", "b", "c"], 6, "must be 3 numbers"),
        (None, 6, "shape"),
        (np.ones(3), 0, "at least 1"),
        (np.ones(3), -2, "at least 1"),
        (np.ones(3), 2.5, "whole number"),
    ],
)
def test_bad_queries(embedding, top_k, message):
    library = CaseLibrary(make_dataset(np.eye(3)))
    with pytest.raises(LibraryError, match=message):
        library.search(embedding, top_k)
    assert len(library.search(np.ones(3))) == 3


def with_cells(change) -> Dataset:
    vectors = np.eye(3)
    change(vectors)
    return make_dataset(vectors)


def with_embeddings(column) -> Dataset:
    return make_dataset(np.eye(3)).remove_columns("embedding").add_column("embedding", column)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (lambda: make_dataset(np.eye(3)).select([]), "empty"),
        (lambda: make_dataset(np.eye(3)).remove_columns(["embedding", "source"]), "source, embedding"),
        (lambda: with_cells(lambda vectors: vectors.__setitem__((1, 1), np.nan)), "row 1"),
        (lambda: with_cells(lambda vectors: vectors.__setitem__(2, 0)), "row 2"),
        (lambda: make_dataset(np.eye(3)).cast_column("label", Value("int64")), "ClassLabel"),
        (lambda: with_embeddings(["a", "b", "c"]), "list of numbers"),
        (lambda: with_embeddings([[1.0], [1.0, 2.0], [3.0]]), "different lengths"),
        (lambda: with_embeddings([[1.0], None, [3.0]]), "incomplete"),
    ],
)
def test_bad_cases(dataset, message):
    with pytest.raises(LibraryError, match=message):
        CaseLibrary(dataset())


@pytest.mark.parametrize("name", ["", "a/b", "a--b", "näme"])
def test_bad_names(name):
    with pytest.raises(LibraryError, match="cannot be named"):
        CaseLibrary(make_dataset(np.eye(3)), name=name)


def test_many_cases_are_kept_in_the_cache_unless_a_place_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library_module, "EXACT_UP_TO", 20)
    vectors, groups = random_cases(40)
    for count, location, folder in ((20, None, False), (40, ":memory:", False), (40, None, True)):
        with CaseLibrary(make_dataset(vectors[:count], groups[:count]), location) as library:
            assert len(library.search(vectors[0], 100)) == count
        assert (tmp_path / "cache" / "libraries").is_dir() == folder


def test_a_group_is_left_out_however_its_id_is_spelled():
    vectors, _ = random_cases(20)
    library = CaseLibrary(make_dataset(vectors, groups=["P01"] * 10 + ["7"] * 10))
    for group, spelled in (("P01", " p01 "), ("7", "7.0")):
        expected = [case.id for case in library.search(vectors[0], 20, exclude_group=group)]
        assert len(expected) == 10
        assert [case.id for case in library.search(vectors[0], 20, exclude_group=spelled)] == expected
        (batch,) = library.search_batch(vectors[:1], 20, [""], spelled)
        assert [case.id for case in batch] == expected
        assert library.familiarity(vectors[0], exclude_group=spelled) == library.familiarity(
            vectors[0], exclude_group=group
        )
    assert len(library.search(vectors[0], 20, exclude_group="p1")) == 20
    ungrouped = CaseLibrary(make_dataset(vectors, groups=[""] * 10 + ["7"] * 10))
    assert len(ungrouped.search(vectors[0], 20, exclude_group="unknown")) == 20
