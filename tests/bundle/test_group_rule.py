"""How groups are pooled, calibrated, chosen and counted, beside slow plain references."""

import numpy as np
import pytest

from medssl.bundle.group_rule import (
    EVIDENCE,
    LOGITS,
    RULE,
    Grouped,
    GroupRule,
    fit_group_rule,
    group_metrics,
    group_similarity,
)
from medssl.bundle.stored_metrics import check_metrics
from medssl.data.labelled import Labelled
from medssl.errors import BundleError
from medssl.heads.config import Thresholds

RANDOM = np.random.default_rng(0)
NAMES = ["a", "b", "c"]


def images(groups, per_group, doubt=1.0, seed=0):
    """Labelled images of groups of one label each, with probabilities that are right more often than not."""
    random = np.random.default_rng(seed)
    labels = np.repeat(random.integers(0, 3, groups), per_group)
    logits = random.normal(0, doubt, (len(labels), 3))
    logits[np.arange(len(labels)), labels] += 1.0
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = np.repeat([f"g{number:03d}" for number in range(groups)], per_group)
    vectors = np.eye(3)[labels] @ random.normal(0, 1, (3, 8)) + random.normal(0, 1, (len(labels), 8))
    return probabilities, Labelled(vectors.astype(np.float32), labels, names)


@pytest.mark.parametrize("pooling", [LOGITS, EVIDENCE])
def test_a_group_is_the_mean_of_its_images(pooling):
    probabilities, found = images(7, 3)
    order = RANDOM.permutation(len(found))
    rule = GroupRule(Thresholds(), pooling, temperature=0.7)
    got = rule.probabilities(probabilities[order], Grouped.of(found.groups[order]))
    for row, name in enumerate(sorted(set(found.groups))):
        own = probabilities[found.groups == name]
        plain = np.log(own).mean(axis=0) if pooling == LOGITS else np.log(own.mean(axis=0))
        expected = np.exp(plain / 0.7) / np.exp(plain / 0.7).sum()
        np.testing.assert_allclose(got[row], expected)


@pytest.mark.parametrize("pooling", [LOGITS, EVIDENCE])
def test_without_each_is_the_rule_on_the_others(pooling):
    probabilities, _ = images(1, 5)
    rule = GroupRule(Thresholds(), pooling, temperature=1.3)
    for left, found in enumerate(rule.without_each(probabilities)):
        rest = np.delete(probabilities, left, axis=0)
        np.testing.assert_allclose(found, rule.probabilities(rest, Grouped.of(["x"] * 4))[0])


@pytest.mark.parametrize("kind", ["mean", "best"])
def test_likeness_of_groups_is_that_of_their_images(kind):
    _, queries = images(4, 3)
    _, cases = images(5, 2, seed=1)
    found = group_similarity(
        queries.embeddings, Grouped.of(queries.groups), cases.embeddings, Grouped.of(cases.groups), kind
    )

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for row, name in enumerate(sorted(set(queries.groups))):
        for column, other in enumerate(sorted(set(cases.groups))):
            pairs = np.array(
                [
                    [cosine(a, b) for b in cases.embeddings[cases.groups == other]]
                    for a in queries.embeddings[queries.groups == name]
                ]
            )
            expected = pairs.mean() if kind == "mean" else pairs.max(axis=1).mean()
            assert found[row, column] == pytest.approx(expected, abs=1e-6)


def test_validation_chooses_the_pooling_with_the_lower_loss_and_calibrates_it():
    probabilities, validation = images(60, 4, doubt=2.0)
    _, train = images(30, 4, seed=2)
    rule = fit_group_rule(probabilities, validation, train, NAMES, 0.9)
    losses, precision = rule.fitted["losses"], rule.fitted["precision_at_5"]
    assert losses[rule.pooling] == min(losses.values()) and precision[rule.similarity] == max(precision.values())
    groups = Grouped.of(validation.groups)
    labels, _ = groups.labels(validation.labels)

    def loss(temperature):
        answers = GroupRule(rule.thresholds, rule.pooling, temperature).probabilities(probabilities, groups)
        return -np.log(answers[np.arange(60), labels]).mean()

    assert loss(rule.temperature) < min(loss(rule.temperature * 1.5), loss(rule.temperature / 1.5))
    members = rule.thresholds.members(rule.probabilities(probabilities, groups))
    assert members[np.arange(60), labels].mean() >= 0.9


def test_the_rule_is_kept_checked_and_read_again():
    probabilities, validation = images(40, 2)
    rule = fit_group_rule(probabilities, validation, images(20, 2, seed=3)[1], NAMES, 0.9)
    metrics = {RULE: rule.to_dict()}
    check_metrics(metrics, "metrics.json")
    assert GroupRule.of(metrics, Thresholds()) == rule and "40 validation groups" in rule.sentence()
    for field, wrong in {"pooling": "sum", "temperature": 0.0, "similarity": 3, "adaptive": {"edges": []}}.items():
        with pytest.raises(BundleError, match=field):
            check_metrics({RULE: {**rule.to_dict(), field: wrong}}, "metrics.json")


def test_an_earlier_bundle_has_a_stated_default():
    rule = GroupRule.of({}, Thresholds(conformal_level=0.8))
    assert (rule.pooling, rule.temperature, rule.thresholds.conformal_level) == (LOGITS, 1.0, 0.8)
    assert "built before groups were calibrated" in rule.sentence()


def test_figures_count_groups_and_leave_out_mixed_ones():
    probabilities, found = images(30, 3)
    labels = found.labels.copy()
    labels[0] = (labels[1] + 1) % 3
    mixed = Labelled(found.embeddings, labels, found.groups)
    rule = GroupRule(Thresholds())
    got = group_metrics(rule, probabilities, mixed, NAMES, 200)
    assert (got["groups"], got["images"], got["mixed_groups"]) == (29, 87, 1)
    answers = rule.probabilities(probabilities[3:], Grouped.of(found.groups[3:]))
    hits = answers.argmax(axis=1) == labels[3::3]
    accuracy = got["classification"]["accuracy"]
    assert accuracy["value"] == pytest.approx(hits.mean()) and accuracy["n"] == accuracy["groups"] == 29
    check_metrics({"group_level": got}, "metrics.json")
    alone = Labelled(found.embeddings[:2], np.array([0, 1]), np.array(["x", "x"]))
    assert group_metrics(rule, probabilities[:2], alone, NAMES) == {"groups": 0, "images": 0, "mixed_groups": 1}
