import numpy as np
import pytest

from medssl.errors import BundleError
from medssl.heads.config import Thresholds
from medssl.heads.prediction_sets import (
    MINIMUM_MASS,
    AdaptiveSets,
    calibrate_sets,
    conformal_probability,
    enough_groups,
    group_quantile,
    mass_members,
    threshold_members,
)

NAMES = ["a", "b", "c", "d"]


def draw(rng, groups, size=4, classes=4, over=1.0):
    """Images of groups that share their difficulty; `over` above 1 makes the probabilities overconfident."""
    count = groups * size
    ease = np.repeat(rng.uniform(0, 6, groups), size)
    labels = np.repeat(rng.integers(0, classes, groups), size)
    logits = ease[:, None] * np.eye(classes)[labels] + 1.5 * rng.normal(size=(count, classes))
    probabilities = np.exp(over * logits) / np.exp(over * logits).sum(axis=1, keepdims=True)
    return probabilities, labels, np.repeat([f"{rng.integers(10**9)}-{g}" for g in range(groups)], size)


def plain_mass(row, mass):
    members, total = set(), 0.0
    for index in sorted(range(len(row)), key=lambda index: -row[index]):
        members.add(index)
        total += row[index]
        if total >= mass - 1e-9:
            return members
    return members


def test_the_mass_sets_equal_a_plain_loop():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), 200)
    for row, members in zip(probabilities, mass_members(probabilities, 0.8), strict=True):
        assert set(np.flatnonzero(members)) == plain_mass(row, 0.8)


def plain_quantile(scores, groups, level):
    """The least score that enough of the weight lies at or below, for both weightings; the higher one."""
    names = sorted(set(groups))
    found = []
    for by_group in (True, False):
        for score in sorted(scores):
            inside = [s <= score for s in scores]
            if by_group:
                own = [[i for i, g in zip(inside, groups, strict=True) if g == name] for name in names]
                weight = sum(np.mean(values) for values in own) / (len(names) + 1)
            else:
                weight = np.mean(inside) * len(names) / (len(names) + 1)
            if weight >= level - 1e-9:
                break
        found.append(score)
    return max(found)


@pytest.mark.parametrize(("images", "groups"), [(60, 30), (60, 12), (40, 5), (7, 7)])
def test_the_quantile_equals_a_plain_loop(images, groups):
    rng = np.random.default_rng(images + groups)
    scores, names = rng.random(images), np.array([f"g{n}" for n in rng.integers(0, groups, images)])
    assert group_quantile(scores, names, 0.9) == plain_quantile(scores.tolist(), names.tolist(), 0.9)


def coverage(rounds, over, sets):
    """Coverage of new groups in the least confident third and overall, over many draws."""
    rng = np.random.default_rng(1)
    low, whole = [], []
    for _ in range(rounds):
        known, new = draw(rng, 45, over=over), draw(rng, 60, over=over)
        inside = sets(known).members(new[0])[np.arange(len(new[1])), new[1]]
        unsure = np.argsort(new[0].max(axis=1))[: len(inside) // 3]
        low.append(inside[unsure].mean())
        whole.append(inside.mean())
    return np.mean(low), np.mean(whole)


@pytest.mark.parametrize("over", [1.0, 2.0])
def test_new_groups_are_covered_where_the_model_is_unsure(over):
    """Also where the probabilities are overconfident; one threshold for all covers less there."""
    low, whole = coverage(120, over, lambda known: calibrate_sets(*known, NAMES, 0.9))
    assert low > 0.88 and whole > 0.88

    def one_threshold(known):
        return Thresholds(conformal_probability=conformal_probability(known[0], known[1], 0.9))

    assert coverage(120, over, one_threshold)[0] < low - 0.02


def test_sets_grow_with_doubt_and_are_never_empty():
    """Whatever validation was like: here it was never wrong, and says nothing of doubtful images."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    logits = (4 + 4 * rng.random((120, 1))) * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    sets = calibrate_sets(probabilities, labels, np.array([f"g{n // 2}" for n in range(120)]), NAMES[:3], 0.9)
    doubtful = np.array([[0.47, 0.28, 0.25], [0.62, 0.30, 0.08], [0.97, 0.02, 0.01]])
    assert sets.members(doubtful).sum(axis=1).tolist() == [3, 2, 1]
    many = rng.dirichlet(np.ones(3), 500)
    members = sets.members(many)
    assert members[np.arange(500), many.argmax(axis=1)].all()
    assert (np.where(members, many, 0).sum(axis=1) >= MINIMUM_MASS - 1e-9).all()
    assert (sets.members(many) == sets.members(many[::-1])[::-1]).all()


def test_few_groups_give_fewer_bands_and_then_a_smaller_promise():
    rng = np.random.default_rng(0)
    promised = {}
    for groups in (60, 10, 5):
        found = calibrate_sets(*draw(rng, groups), NAMES, 0.9)
        assert len(found.groups) == len(found.edges) + 1
        promised[groups] = len(found.groups), found.promised(0.9)
    assert promised[60] == (3, 0.9) and promised[10] == (1, 0.9)
    assert promised[5] == (1, pytest.approx(5 / 6))
    assert enough_groups(0.9) == 9 and enough_groups(0.8) == 4


def test_what_is_promised_is_said():
    rng = np.random.default_rng(0)
    wide = Thresholds(adaptive=calibrate_sets(*draw(rng, 80), NAMES, 0.9)).promise()
    assert len(wide) == 1 and "3 bands" in wide[0]
    thin = " ".join(Thresholds(adaptive=calibrate_sets(*draw(rng, 5), NAMES, 0.9)).promise())
    assert (
        "too few groups to promise 90%: 83% can be promised" in thin
        and "how well a class by itself is covered: a (" in thin
    )
    assert "earlier version" in " ".join(Thresholds(conformal_probability=0.2).promise())
    assert "not calibrated" in " ".join(Thresholds().promise())


def test_sets_of_earlier_heads_are_what_they_were_and_uncalibrated_ones_hold_all():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33]])
    assert threshold_members(probabilities, 0.3).tolist() == [[True, True, False], [True, True, True]]
    assert threshold_members(probabilities, 0.6).tolist() == [[True, False, False], [True, False, False]]
    assert Thresholds(conformal_probability=0.3).members(probabilities).tolist() == [[1, 1, 0], [1, 1, 1]]
    assert Thresholds().members(probabilities).all()


def test_the_summary_names_what_is_set():
    sets = AdaptiveSets(
        edges=[0.5, 0.75], probabilities=[0.125, 0.25, 1.0], groups=[12, 13, 14], class_groups={"a": 12}
    )
    assert Thresholds(adaptive=sets, familiarity=0.5).summary() == (
        "conformal_level 0.9, familiarity 0.5, familiarity_neighbors 5, prediction sets of at least 0.8 of the "
        "probability, every class from 0.125 at a confidence of 0 to 0.5, every class from 0.25 at a confidence of 0.5 "
        "to 0.75"
    )


def test_sets_that_do_not_fit_are_refused():
    with pytest.raises(BundleError, match="one edge fewer"):
        AdaptiveSets(edges=[0.5], probabilities=[0.1], groups=[9], class_groups={})
    with pytest.raises(BundleError, match="do not fit"):
        AdaptiveSets.from_dict({"edges": [], "unknown": 1})


def test_conformal_sets_cover_at_their_level_on_new_data():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        probabilities = rng.dirichlet(np.ones(4), 200)
        labels = np.array([rng.choice(4, p=row) for row in probabilities])
        threshold = conformal_probability(probabilities[:100], labels[:100], 0.9)
        covered.append((probabilities[100:][np.arange(100), labels[100:]] >= threshold).mean())
    assert 0.89 < np.mean(covered) < 0.93


def test_conformal_with_too_few_images_admits_every_class():
    assert conformal_probability(np.full((5, 2), 0.5), np.zeros(5, int), 0.9) == 0.0
