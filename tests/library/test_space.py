import numpy as np
import pytest
from safetensors.numpy import save_file

from medssl.data.labelled import Labelled
from medssl.errors import BundleError, LibraryError
from medssl.library.fit_space import (
    SHRINKAGE,
    choose_space,
    describe_space_choice,
    fit_spaces,
    space_figures,
    standardized,
    whitened,
)
from medssl.library.library import CaseLibrary
from medssl.library.space import CaseSpace, in_space, mapped
from tests.library.test_library import make_dataset


def images(count: int, seed: int, nuisance: float = 8.0) -> Labelled:
    """Two numbers of ten tell the class; two others, the same noise for both, drown them in a plain cosine."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    values = rng.normal(size=(count, 10))
    values[:, :2] += 3 * np.eye(3)[labels, :2]
    values[:, 4:8] += nuisance * rng.normal(size=(count, 1))
    return Labelled(values.astype(np.float32), labels, np.array([f"{seed}-{row // 2}" for row in range(count)]))


def test_whitening_is_the_metric_of_the_shrunk_within_class_covariance():
    train = images(200, 0)
    space, values = whitened(train), train.embeddings.astype(float)
    scores = (values - values.mean(0)) / values.std(0)
    within = sum(
        np.outer(
            scores[row] - scores[train.labels == label].mean(0), scores[row] - scores[train.labels == label].mean(0)
        )
        for label in range(3)
        for row in np.flatnonzero(train.labels == label)
    ) / len(scores)
    inverse = np.linalg.inv(within + SHRINKAGE * np.eye(10))
    expected = np.array([[a @ inverse @ b for b in scores[:20]] for a in scores[:20]])
    found = space.apply(train.embeddings[:20])
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-3)


def test_standardized_numbers_have_mean_0_and_deviation_1_and_a_constant_stays_finite():
    train = images(50, 0)
    train.embeddings[:, 3] = 7
    found = standardized(train).apply(train.embeddings)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.delete(found.std(0), 3), 1, atol=1e-5)
    assert np.isfinite(whitened(train).apply(train.embeddings)).all() and not found[:, 3].any()


@pytest.mark.parametrize("name", ["standardized", "whitened"])
def test_a_map_comes_back_from_its_file_bit_for_bit(name, tmp_path):
    space = fit_spaces(images(60, 0))[name]
    (tmp_path / "x").write_bytes(space.to_bytes())
    again = CaseSpace.load(tmp_path / "x", name, 10)
    np.testing.assert_array_equal(again.apply(np.ones(10)), space.apply(np.ones(10)))


FULL, OFFSET = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("tensors", "name", "message"),
    [
        ({"matrix": FULL}, "whitened", "matrix, offset"),
        ({"matrix": FULL, "offset": OFFSET, "more": OFFSET}, "whitened", "matrix, offset"),
        ({"matrix": FULL[:2], "offset": OFFSET}, "whitened", r"\[2, 3\].*needed: \[3, 3\]"),
        ({"matrix": FULL, "offset": OFFSET}, "standardized", r"needed: \[3\]"),
        ({"matrix": FULL, "offset": OFFSET[:2]}, "whitened", "3 numbers"),
        ({"matrix": FULL.astype(np.float64), "offset": OFFSET}, "whitened", "no float32"),
        ({"matrix": FULL * np.nan, "offset": OFFSET}, "whitened", "not finite"),
        ({"matrix": FULL, "offset": OFFSET}, "plain", "no map for the space 'plain'"),
    ],
)
def test_a_file_that_is_no_such_map_is_refused(tensors, name, message, tmp_path):
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(BundleError, match=message):
        CaseSpace.load(tmp_path / "x.safetensors", name, 3)


def test_no_safetensors_and_another_width_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"no tensors")
    with pytest.raises(BundleError, match="holds no map"):
        CaseSpace.load(tmp_path / "x", "whitened", 3)
    with pytest.raises(BundleError, match="takes 3 numbers"):
        CaseSpace("whitened", FULL, OFFSET).apply(np.ones(4))


def test_the_space_of_highest_map_is_chosen_and_what_was_tried_is_said():
    train, validation = images(150, 0), images(90, 1)
    space, record = choose_space(train, validation)
    values = {name: found["map_at_10"]["value"] for name, found in record["tried"].items()}
    assert record["chosen"] == space.name == "whitened" == max(values, key=values.get)
    assert record["chosen_minus_plain"]["low"] > 0
    assert values["whitened"] == space_figures(space, validation, train, 10, 0)["map_at_10"]["value"]
    text = describe_space_choice(record)
    assert "within-class covariance" in text and "90 validation images of 45 groups" in text and "above plain" in text


def test_one_that_was_asked_for_is_not_compared():
    train, validation = images(40, 0), images(20, 1)
    for name in ("plain", "standardized", "whitened"):
        space, record = choose_space(train, validation, name)
        assert (space.name if space else "plain") == name and record == {"asked": name, "chosen": name}
        assert "as asked for" in describe_space_choice(record)


def test_a_library_searches_in_its_space_and_is_familiar_with_plain_embeddings():
    train, queries = images(40, 0), images(5, 1)
    space = whitened(train)
    with CaseLibrary(make_dataset(train.embeddings), name="s", space=space) as library:
        with CaseLibrary(make_dataset(train.embeddings), name="p") as plain:
            compared = mapped(space, train).embeddings
            compared = compared / np.linalg.norm(compared, axis=1, keepdims=True)
            for query in queries.embeddings:
                own = space.apply(query)
                cosines = compared @ (own / np.linalg.norm(own))
                found = library.search(query, 4)
                assert [case.id for case in found] == [f"case-{row}" for row in np.argsort(-cosines)[:4]]
                np.testing.assert_allclose([case.score for case in found], np.sort(cosines)[::-1][:4], atol=1e-6)
                assert library.find(found[2].id, query).score == pytest.approx(found[2].score, abs=1e-12)
                assert library.familiarity(query) == plain.familiarity(query)
                assert found[0].space is space
                row = int(found[0].id[5:])
                np.testing.assert_array_equal(found[0].embedding, train.embeddings[row])
        with pytest.raises(LibraryError, match="shape"):
            library.search(np.ones(9))


def test_a_folder_keeps_both_collections_and_builds_them_once(tmp_path):
    train = images(30, 0)
    with CaseLibrary(make_dataset(train.embeddings), str(tmp_path / "q"), "s", space=whitened(train)) as library:
        before, found = [library.collection, library.plain.collection], library.search(train.embeddings[3], 3)
    with CaseLibrary(make_dataset(train.embeddings), str(tmp_path / "q"), "s", space=whitened(train)) as library:
        assert [library.collection, library.plain.collection] == before and len(set(before)) == 2
        assert library.search(train.embeddings[3], 3) == found


def test_the_plain_space_maps_nothing():
    values = np.ones((2, 3), np.float32)
    assert in_space(None, values) is values
