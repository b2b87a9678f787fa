"""Plain heads against loops, scikit-learn and the package's own head."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.data.labelled import Labelled
from medssl.data.tasks import get_task
from medssl.heads.fit_linear import choose_linear, fit_head
from medssl.images.preprocess import Preprocess
from medssl.metrics.retrieval import RETRIEVAL, retrieval_metrics
from medssl.study.probes import (
    KS,
    count_votes,
    nearest_cases,
    precision_at_ranks,
    predict_centroid,
    predict_knn,
    score_heads,
    score_linear,
)


def make_part(images=60, spread=1.0, seed=0, groups=None, classes=3, dimension=6):
    """Clusters in fixed directions; `spread` is the noise around them."""
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(classes, dimension))
    labels = np.arange(images) % classes
    vectors = (centers[labels] + spread * random.normal(size=(images, dimension))).astype(np.float32)
    names = groups if groups is not None else [f"{seed}-{number // 2}" for number in range(images)]
    return Labelled(vectors, labels, np.array(names, dtype=str))


def parts(spread=1.0, images=60):
    return [make_part(images, spread, seed) for seed in (1, 2, 3)]


def plain_knn(train, query, group, k, classes):
    """One query by loops."""
    near = []
    for vector, label, other in zip(train.embeddings.astype(float), train.labels, train.groups, strict=True):
        if other != group:
            near.append((vector @ query / np.linalg.norm(vector) / np.linalg.norm(query), label))
    near.sort(key=lambda pair: -pair[0])
    votes = [sum(1 + cosine for cosine, label in near[:k] if label == wanted) for wanted in range(classes)]
    return votes.index(max(votes)) if near else -1


@pytest.mark.parametrize("k", KS)
def test_knn_equals_plain_loops_and_leaves_out_the_own_group(k):
    random = np.random.default_rng(k)
    train = make_part(70, 2.0, 1, random.integers(0, 6, 70))
    test = make_part(40, 2.0, 2, random.integers(0, 6, 40))
    found = count_votes(*nearest_cases(test, train, k), k, 3)
    pairs = zip(test.embeddings.astype(float), test.groups, strict=True)
    assert found.tolist() == [plain_knn(train, query, group, k, 3) for query, group in pairs]


def test_the_own_group_gives_no_vote_even_where_it_is_the_same_image():
    train = Labelled(np.eye(4, dtype=np.float32)[[0, 1, 2]] + 0.1, np.array([0, 1, 1]), np.array(["a", "b", "c"]))
    test = Labelled(train.embeddings[:1], np.array([0]), np.array(["a"]))
    assert count_votes(*nearest_cases(test, train, 1), 1, 2).tolist() == [1]
    alone = Labelled(train.embeddings, train.labels, np.array(["a"] * 3))
    assert count_votes(*nearest_cases(test, alone, 5), 5, 2).tolist() == [-1]


def test_equal_votes_go_to_the_first_label_every_time():
    vectors = np.tile(np.array([[1.0, 2.0]], np.float32), (4, 1))
    train = Labelled(vectors, np.array([2, 1, 1, 2]), np.array(list("abcd")))
    test = Labelled(vectors[:1], np.array([0]), np.array(["z"]))
    assert {int(count_votes(*nearest_cases(test, train, 4), 4, 3)[0]) for _ in range(5)} == {1}


def test_blocks_of_queries_are_the_same(monkeypatch):
    train, _, test = parts()
    whole = nearest_cases(test, train, 5)
    monkeypatch.setattr("medssl.metrics.retrieval.QUERY_BLOCK", 7)
    blocks = nearest_cases(test, train, 5)
    np.testing.assert_array_equal(whole[0], blocks[0])
    np.testing.assert_allclose(whole[1], blocks[1])


def test_k_comes_from_validation_only():
    train, validation, test = parts(2.0)
    right = {k: (count_votes(*nearest_cases(validation, train, k), k, 3) == validation.labels).mean() for k in KS}
    best = min(k for k in KS if right[k] == max(right.values()))
    _, chosen = predict_knn(train, validation, test, 3)
    assert chosen == best
    # Test labels play no part, test images only get answers; another validation set can choose otherwise.
    other = Labelled(test.embeddings[::-1], (test.labels + 1) % 3, test.groups)
    assert predict_knn(train, validation, other, 3)[1] == chosen
    chosen_by = {predict_knn(train, make_part(60, 2.0, seed), test, 3)[1] for seed in range(10, 20)}
    assert len(chosen_by) > 1


def test_centroid_equals_scikit_learn_cosines():
    train, _, test = parts(1.5)
    vectors = train.embeddings / np.linalg.norm(train.embeddings, axis=1, keepdims=True)
    means = np.stack([vectors[train.labels == label].mean(axis=0) for label in range(3)])
    expected = cosine_similarity(test.embeddings, means).argmax(axis=1)
    np.testing.assert_array_equal(predict_centroid(train, test, 3), expected)


def test_precisions_are_those_of_retrieval_metrics():
    random = np.random.default_rng(0)
    train = make_part(70, 2.0, 1, random.integers(0, 9, 70))
    test = make_part(40, 2.0, 2, random.integers(0, 9, 40))
    found = retrieval_metrics(
        test.embeddings, test.labels, test.groups, train.embeddings, train.labels, train.groups, n_bootstrap=5
    )
    means = precision_at_ranks(test, train).mean(axis=0)
    assert means == pytest.approx([found[name]["value"] for name in RETRIEVAL], abs=1e-12)


@pytest.mark.parametrize("images", [60, 40])
def test_the_linear_head_is_the_one_that_fit_head_fits(tiny_backbone, images):
    backbone = Backbone.from_pretrained(tiny_backbone)
    made = [make_part(images, 2.0, seed, dimension=backbone.dimension) for seed in (1, 2)]
    head = fit_head(*made, get_task("three", ["a", "b", "c"]), Embedder(backbone, Preprocess(), "cls"))
    weight, bias, C, _ = choose_linear(*made, 3)
    assert C == head.fitted_on["C"]
    np.testing.assert_allclose(head.linear.weight.numpy(), weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(head.linear.bias.numpy(), bias, rtol=1e-5, atol=1e-6)
    test = make_part(images, 2.0, 3, dimension=backbone.dimension)
    outcome = score_linear(*made, test, 3)
    with torch.no_grad():
        probabilities = head.probabilities(torch.from_numpy(test.embeddings))
    np.testing.assert_allclose(outcome.probabilities, probabilities.numpy(), atol=1e-5)
    np.testing.assert_array_equal(outcome.sets, head.prediction_sets(probabilities).numpy())
    np.testing.assert_array_equal(outcome.predicted, probabilities.argmax(dim=1).numpy())


def test_random_embeddings_are_at_chance_and_clear_ones_are_right():
    random = np.random.default_rng(0)
    noise = [make_part(600, 1.0, seed) for seed in (1, 2, 3)]
    noise = [Labelled(part.embeddings, random.permutation(part.labels), part.groups) for part in noise]
    for outcome in score_heads(*noise, 3):
        # Average precision has another chance level: it asks for the first ranks to be right.
        if outcome.metrics != ("map_at_10",):
            assert outcome.scores.mean() == pytest.approx(1 / 3, abs=0.06), outcome.head
    for outcome in score_heads(*parts(0.05), 3):
        assert outcome.scores.mean() == 1, outcome.head
    heads = [outcome.head for outcome in score_heads(*parts(), 3)]
    assert heads == ["linear", "knn", "centroid", "retrieval", "retrieval", "retrieval"]
