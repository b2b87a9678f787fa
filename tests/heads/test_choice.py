"""Linear or patch: validation chooses by group, and linear where it cannot tell the two apart."""

import numpy as np
import pytest

from medssl.data.labelled import Labelled
from medssl.heads.choice import (
    Candidate,
    asked_for,
    compare_kinds,
    describe_choice,
    held_out_logits,
    patch_not_tried,
)

GROUPS = np.array([f"group-{index // 3}" for index in range(60)])
LABELS = np.arange(60) % 2


def candidate(wrong):
    """A kind of head whose held-out logits are right but for some rows."""
    said = LABELS.copy()
    said[list(wrong)] = 1 - said[list(wrong)]
    return Candidate(None, np.eye(2)[said])


def compare(linear_wrong, patch_wrong, groups=GROUPS):
    validation = Labelled(np.zeros((60, 1), np.float32), LABELS, groups)
    return compare_kinds(candidate(linear_wrong), candidate(patch_wrong), validation, seed=0)


def test_a_clear_win_of_patch_is_taken():
    found = compare(range(0, 60, 2), range(0))
    assert found["chosen"] == "patch"
    assert found["linear"]["value"] == 0.5 and found["patch"]["value"] == 1.0
    assert found["patch_minus_linear"]["value"] == pytest.approx(0.5) and found["patch_minus_linear"]["low"] > 0
    assert (found["images"], found["groups"]) == (60, 20)
    assert "Head: patch, because patch is better beyond the interval" in describe_choice(found)


@pytest.mark.parametrize(
    ("linear_wrong", "patch_wrong"),
    [((), ()), ((0,), ()), ((0, 1, 2, 3), (5,)), ((), range(0, 60, 2))],
    ids=["alike", "one image better", "better in two groups of 20", "worse"],
)
def test_linear_where_patch_is_not_better_beyond_the_interval(linear_wrong, patch_wrong):
    found = compare(linear_wrong, patch_wrong)
    assert found["chosen"] == "linear" and "patch is not better beyond the interval" in describe_choice(found)


def test_a_single_group_tells_nothing():
    found = compare(range(30), (), groups=np.array(["one"] * 60))
    assert found["chosen"] == "linear" and found["patch_minus_linear"]["low"] is None
    assert "interval unknown" in describe_choice(found)


def test_no_image_is_compared_under_settings_that_its_own_group_chose():
    asked = []

    def chosen_by(rows):
        asked.append(rows)
        return np.full((60, 2), len(asked), float)

    found = held_out_logits(chosen_by, GROUPS, seed=1)
    one, two = asked
    assert np.array_equal(one, ~two) and 24 <= one.sum() <= 36
    for group in set(GROUPS):
        assert len(set(one[group == GROUPS])) == 1, "a group is on one side"
    assert (found[one] == 2).all() and (found[two] == 1).all()


def test_settings_that_fit_their_choosers_only_gain_nothing():
    """Of many settings that guess, the best on all images looks good there; by the other half it does not."""
    random = np.random.default_rng(0)
    everything, flattered, honest = np.ones(60, bool), [], []

    def right(logits, rows):
        return (logits.argmax(axis=-1) == LABELS)[..., rows].mean(axis=-1)

    for seed in range(20):
        fits = np.eye(2)[random.integers(0, 2, (200, 60))]
        held_out = held_out_logits(lambda rows, fits=fits: fits[right(fits, rows).argmax()], GROUPS, seed)
        flattered.append(right(fits, everything).max())
        honest.append(right(held_out, everything))
    assert np.mean(flattered) > 0.65 and abs(np.mean(honest) - 0.5) < 0.05


def test_what_was_asked_for_or_not_tried_is_said():
    assert describe_choice(asked_for("patch")) == "Head: patch, as asked for."
    said = describe_choice(patch_not_tried("the backbone gives no patch tokens"))
    assert said == "Head: linear; a patch head was not tried: the backbone gives no patch tokens."
