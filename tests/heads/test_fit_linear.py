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
from medssl.heads.fit_linear import fit_head, fit_linear
from tests.models import save_model


def part(count: int, classes: int, seed: int, width: int = 48, spread: float = 1.5) -> Labelled:
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(classes, width))
    labels = np.arange(count) % classes
    vectors = centers[labels] + spread * rng.normal(size=(count, width)) + 3
    return Labelled(vectors.astype(np.float32), labels, np.array([f"{seed}-{i // 2}" for i in range(count)]))


@pytest.mark.parametrize("classes", [2, 4])
def test_the_folded_layer_equals_scikit_learn_on_standardised_embeddings(classes):
    train, other = part(80, classes, 0), part(30, classes, 1)
    weight, bias = fit_linear(train, 0.1, classes, balanced=False)
    scaler = StandardScaler().fit(train.embeddings)
    model = LogisticRegression(C=0.1, max_iter=2000).fit(scaler.transform(train.embeddings), train.labels)
    expected = model.predict_proba(scaler.transform(other.embeddings))
    np.testing.assert_allclose(softmax(other.embeddings @ weight.T + bias, axis=1), expected, atol=1e-6)


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
