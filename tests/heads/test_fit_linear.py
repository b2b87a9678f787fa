import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.data.labelled import Labelled
from medssl.data.tasks import Task
from medssl.errors import DataError
from medssl.heads.fit_linear import (
    conformal_probability,
    fit_head,
    fit_linear,
    fit_temperature,
    nearest_similarity,
    smoothed_loss,
)
from tests.models import save_model


def part(count: int, classes: int, seed: int, width: int = 48, spread: float = 1.5) -> Labelled:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = np.arange(count) % classes
    vectors = centres[labels] + spread * rng.normal(size=(count, width)) + 3
    return Labelled(vectors.astype(np.float32), labels, np.array([f"{seed}-{i // 2}" for i in range(count)]))


@pytest.mark.parametrize("classes", [2, 4])
def test_the_folded_layer_equals_scikit_learn_on_standardised_embeddings(classes):
    train, other = part(80, classes, 0), part(30, classes, 1)
    weight, bias = fit_linear(train, 0.1, classes, balanced=False)
    scaler = StandardScaler().fit(train.embeddings)
    model = LogisticRegression(C=0.1, max_iter=2000).fit(scaler.transform(train.embeddings), train.labels)
    expected = model.predict_proba(scaler.transform(other.embeddings))
    np.testing.assert_allclose(softmax(other.embeddings @ weight.T + bias, axis=1), expected, atol=1e-6)


def test_temperature_beats_every_other_on_a_grid():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    logits = 8 * (np.eye(3)[labels] + rng.normal(size=(300, 3)))
    temperature = fit_temperature(logits, labels)
    best = smoothed_loss(logits / temperature, labels)
    assert temperature > 2
    assert all(best <= smoothed_loss(logits / t, labels) + 1e-6 for t in np.geomspace(0.1, 15, 60))


def test_a_perfect_validation_does_not_give_infinite_confidence():
    labels = np.arange(100) % 4
    temperature = fit_temperature(np.eye(4)[labels], labels)
    confidence = softmax(np.eye(4)[labels] / temperature, axis=1).max()
    assert 0.98 < confidence < 0.995


def test_the_smoothed_loss_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(7, 3)), rng.integers(0, 3, 7)
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        p = np.exp(row) / np.exp(row).sum()
        for index in range(3):
            total -= (1 - 1 / 9 if index == label else 1 / 18) * np.log(p[index])
    assert smoothed_loss(logits, labels) == pytest.approx(total / 7)


def test_conformal_sets_cover_at_their_level_on_new_data():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        probabilities = rng.dirichlet(np.ones(4), 200)
        labels = np.array([rng.choice(4, p=row) for row in probabilities])
        threshold = conformal_probability(probabilities[:100], labels[:100])
        covered.append((probabilities[100:][np.arange(100), labels[100:]] >= threshold).mean())
    assert 0.89 < np.mean(covered) < 0.93


def test_conformal_with_too_few_images_admits_every_class():
    assert conformal_probability(np.full((5, 2), 0.5), np.zeros(5, int)) == 0.0


def test_nearest_similarity_equals_plain_loops_and_leaves_out_the_own_group():
    queries, cases = part(20, 3, 0), part(40, 3, 1)
    groups = cases.groups.copy()
    groups[:10] = queries.groups[0]
    cases = Labelled(cases.embeddings, cases.labels, groups)
    found = nearest_similarity(queries, cases, 5)
    for index, query in enumerate(queries.embeddings):
        cosines = [
            float(query @ case / np.linalg.norm(query) / np.linalg.norm(case))
            for case, group in zip(cases.embeddings, groups, strict=True)
            if group != queries.groups[index]
        ]
        np.testing.assert_allclose(found[index], np.mean(sorted(cosines)[-5:]), atol=1e-5)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return Backbone.from_pretrained(save_model("dinov2", tmp_path_factory.mktemp("dinov2")))


def fit(backbone, train, validation, labels=("x", "y", "z")):
    task = Task("toy", "Toy", labels, "none")
    return fit_head(train, validation, task, Embedder.of(backbone), {"data": "toy", "seed": 0})


def test_fitting_twice_gives_the_same_bits_and_a_good_head(backbone):
    train, validation, test = part(120, 3, 0), part(60, 3, 1), part(300, 3, 2)
    one, two = fit(backbone, train, validation), fit(backbone, train, validation)
    assert (one.linear.weight == two.linear.weight).all() and one.temperature == two.temperature
    right = [p.label == "xyz"[label] for p, label in zip(one.predict(test.embeddings), test.labels, strict=True)]
    assert np.mean(right) > 0.9
    assert one.fitted_on["train_images"] == 120 and one.fitted_on["val_groups"] == 30
    assert one.fitted_on["class_weight"] == "none"


def test_uneven_classes_are_weighted(backbone):
    whole = part(120, 3, 0)
    keep = (whole.labels != 2) | (np.arange(120) % 4 == 0)
    train = Labelled(whole.embeddings[keep], whole.labels[keep], whole.groups[keep])
    assert fit(backbone, train, part(60, 3, 1)).fitted_on["class_weight"] == "balanced"


def test_random_labels_give_chance(backbone):
    rng = np.random.default_rng(0)
    parts = []
    for seed, count in ((0, 200), (1, 100), (2, 400)):
        known = part(count, 3, seed)
        parts.append(Labelled(known.embeddings, rng.permutation(known.labels), known.groups))
    head = fit(backbone, *parts[:2])
    right = [
        p.label == "xyz"[label] for p, label in zip(head.predict(parts[2].embeddings), parts[2].labels, strict=True)
    ]
    assert 0.25 < np.mean(right) < 0.42


def test_a_class_missing_from_validation_is_refused(backbone):
    validation = part(60, 3, 1)
    keep = validation.labels != 1
    with pytest.raises(DataError, match="val split has no image of y"):
        fit(
            backbone,
            part(60, 3, 0),
            Labelled(validation.embeddings[keep], validation.labels[keep], validation.groups[keep]),
        )
