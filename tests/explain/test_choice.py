"""What "auto" means, and the one line that says which explainer, why, and by how much."""

import pytest

from medssl.explain.check import FEWEST_GROUPS
from medssl.explain.choice import AUTO, ExplainerChoice


def figures(value, low, high, groups=20):
    return {"less_random": {"value": value, "low": low, "high": high, "n": groups + 4, "groups": groups}}


BEATS, LESS, NOT = figures(0.2, 0.1, 0.3), figures(0.15, 0.05, 0.25), figures(0.05, -0.02, 0.12)


def test_vit_cx_that_beats_random():
    choice = ExplainerChoice({"vit_cx": LESS, "grad_cam": BEATS})
    assert choice.method == choice.resolve(AUTO) == "vit_cx" and choice.resolve("rise") == "rise"
    assert choice.line("vit_cx") == choice.line(AUTO), "the chosen one by its name is no other answer"
    assert choice.line(AUTO) == (
        "ViT-CX, which beats random maps on validation: insertion minus deletion +0.150 [+0.050, +0.250] against "
        "theirs, 24 images of 20 groups."
    )


def test_another_where_vit_cx_does_not():
    choice = ExplainerChoice({"vit_cx": NOT, "gradient_rollout": BEATS, "grad_cam": LESS})
    assert choice.method == "gradient_rollout"
    line = choice.line(AUTO)
    assert line.startswith("Gradient rollout, because ViT-CX does not beat random maps on validation")
    assert "+0.050 [-0.020, +0.120]" in line and "+0.200 [+0.100, +0.300]" in line


def test_none_is_said():
    choice = ExplainerChoice({"vit_cx": NOT, "grad_cam": NOT})
    assert choice.checked and choice.resolve(AUTO) is None
    assert choice.line(AUTO).startswith("No heatmap is shown: on validation no explainer of this model beats random")
    assert "Tried: ViT-CX, Grad-CAM." in choice.line(AUTO)


@pytest.mark.parametrize("method", ["vit_cx", "grad_cam"])
def test_by_hand_the_figures_are_said_too(method):
    choice = ExplainerChoice({"vit_cx": NOT, "grad_cam": LESS, "gradient_rollout": BEATS})
    said = "does not beat" if method == "vit_cx" else "beats"
    assert f"chosen by hand; on validation it {said} random maps: insertion minus deletion" in choice.line(method)
    assert choice.line("rise") == ("RISE, chosen by hand; not checked against random maps when this bundle was built.")


def test_an_old_bundle_shows_vit_cx_as_not_checked():
    choice = ExplainerChoice.of({"classification": {}})
    assert not choice.checked and choice.method == "vit_cx"
    assert choice.line(AUTO) == "ViT-CX, not checked against random maps when this bundle was built."


def test_too_few_groups_are_no_check():
    few = figures(0.2, 0.1, 0.3, groups=FEWEST_GROUPS - 1)
    choice = ExplainerChoice.of({"explainer_check": {"explainers": {"vit_cx": few, "grad_cam": few}}})
    assert not choice.checked and choice.method == "vit_cx"
    assert "only 5 groups of validation images were measured against random maps, and 6" in choice.line(AUTO)
    assert "only 5 groups" in choice.line("grad_cam")


def test_what_this_model_cannot_do_is_never_chosen():
    record = {"explainer_check": {"explainers": {"vit_cx": NOT, "grad_cam": BEATS, "of_later": BEATS}}}
    assert ExplainerChoice.of(record).method == "grad_cam"
    assert ExplainerChoice.of(record, {"vit_cx": "ViT-CX"}).method is None
