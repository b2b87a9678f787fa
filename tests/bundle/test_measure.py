"""The figures of a bundle are those of what it serves."""

import numpy as np
import pytest

from medssl.bundle.measure import measure, part_of


@pytest.fixture(scope="module")
def bundle(tiny_bundles):
    return next(iter(tiny_bundles.values()))


def test_accuracy_equals_predicting_every_image(bundle):
    queries = part_of(bundle.cases, "test")
    figures = measure(bundle, queries, n_bootstrap=50)
    predicted = [bundle.labels.index(p.label) for p in bundle.head.predict(queries.embeddings)]
    assert figures["classification"]["accuracy"]["value"] == pytest.approx(np.mean(predicted == queries.labels))
    sets = [
        label in p.prediction_set
        for p, label in zip(
            bundle.head.predict(queries.embeddings), np.array(bundle.labels)[queries.labels], strict=True
        )
    ]
    assert figures["classification"]["conformal_coverage"]["value"] == pytest.approx(np.mean(sets))


def test_retrieval_equals_searching_the_served_library(bundle):
    queries = part_of(bundle.cases, "test")
    figures = measure(bundle, queries, n_bootstrap=50)
    first, five = [], []
    for vector, label, group in zip(queries.embeddings, queries.labels, queries.groups, strict=True):
        cases = bundle.library.search(vector, 5, exclude_group=group)
        right = [case.label == bundle.labels[label] for case in cases]
        first.append(right[0])
        five.append(np.mean(right))
    assert figures["retrieval"]["precision_at_1"]["value"] == pytest.approx(np.mean(first))
    assert figures["retrieval"]["precision_at_5"]["value"] == pytest.approx(np.mean(five))


def test_unfamiliar_share_equals_the_served_flag(bundle):
    queries = part_of(bundle.cases, "test")
    figures = measure(bundle, queries, {"same": queries}, n_bootstrap=50)
    threshold = bundle.head.thresholds.familiarity
    flags = [
        bundle.library.familiarity(vector, exclude_group=group) < threshold
        for vector, group in zip(queries.embeddings, queries.groups, strict=True)
    ]
    assert figures["unfamiliar"]["own"]["value"] == pytest.approx(np.mean(flags), abs=1 / len(flags))
    assert figures["unfamiliar"]["others"]["same"] == figures["unfamiliar"]["own"]


def test_measuring_twice_gives_the_same_figures(bundle):
    queries = part_of(bundle.cases, "test")
    assert measure(bundle, queries, n_bootstrap=50, seed=3) == measure(bundle, queries, n_bootstrap=50, seed=3)
