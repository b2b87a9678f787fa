"""The explainers are measured against random maps on a seeded sample, within a time that a clock decides."""

import json

import numpy as np
import pytest
from PIL import Image

from medssl.explain import check
from medssl.explain.check import (
    FEWEST_GROUPS,
    CheckPlan,
    check_explainers,
    choose_explainer,
    picture_figures,
    rounds_of,
    sample_rows,
)
from medssl.explain.faithfulness import STEPS, deletion_insertion, shown_map
from medssl.explain.registry import available_explainers, make_explainer
from medssl.explain.score import class_score
from medssl.images.read import read_image

GROUPS = [f"group-{number % 8}" for number in range(12)]


class Drawn:
    """Frames of one model: a few real pictures in its frame, over and over."""

    def __init__(self, bundle, files):
        self.pictures = [np.asarray(bundle.head.preprocess.resize(read_image(file))) for file in files]

    def __len__(self):
        return len(GROUPS)

    def frame(self, index):
        return self.pictures[index % len(self.pictures)]


class Clock:
    """Seconds that pass only when it is looked at."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


@pytest.fixture(scope="module")
def bundle(tiny_bundles):
    return tiny_bundles["shapes"]


@pytest.fixture(scope="module")
def frames(bundle, tiny_data):
    return Drawn(bundle, sorted(tiny_data["shapes"].glob("*.png"))[:3])


def plan(step=0.0, **settings):
    return CheckPlan(**{"seconds": 10, "images": 4, "progress": False, "clock": Clock(step), **settings})


def figures(low, value=0.1, groups=FEWEST_GROUPS):
    return {"less_random": {"value": value, "low": low, "high": 1.0, "n": groups, "groups": groups}}


def test_each_group_comes_once_before_any_comes_twice():
    rows = sample_rows(GROUPS, 10, seed=3)
    assert {GROUPS[row] for row in rows[:8]} == set(GROUPS) and len(set(rows)) == 10
    assert rows.tolist() == sample_rows(GROUPS, 10, seed=3).tolist() != sample_rows(GROUPS, 10, seed=4).tolist()
    assert sorted(sample_rows(GROUPS, 100, seed=0)) == list(range(12))


def test_a_figure_is_that_of_the_plain_way(bundle, shapes_image):
    image = read_image(shapes_image)
    frame = bundle.head.preprocess.resize(image)
    explainers = [make_explainer(name, bundle.backbone, bundle.head) for name in ("grad_cam", "random")]
    found = picture_figures(explainers, image, seed=5)
    label = bundle.analyze(image, explain=False).prediction.label
    for explainer, value in zip(explainers, found, strict=True):
        explanation = explainer.explain(image, label, 5)
        score = class_score(bundle.head, bundle.labels.index(label))
        pixels = bundle.backbone.pixels([image], bundle.head.preprocess)
        curve = deletion_insertion(explainer.scores, score, pixels, [shown_map(explanation)], STEPS, 5)[0]
        assert value == pytest.approx(curve.insertion_minus_deletion, abs=1e-5)
    assert found == pytest.approx(picture_figures(explainers, Image.fromarray(frame), seed=5), abs=1e-6)


def test_quick_ones_first_and_none_that_does_not_look_at_the_class(bundle):
    first, second = ([each.method for each in explainers] for explainers in rounds_of(bundle.backbone, bundle.head))
    assert first == ["vit_cx", "gradient_rollout", "grad_cam"]
    assert {"occlusion", "rise"} <= set(second) and not {"random", "attention_rollout"} & {*first, *second}
    assert "vit_cx_blur" in available_explainers(bundle.backbone, bundle.head)
    assert "vit_cx_blur" not in second, "insertion starts from blur, too, and would favor it"


def test_the_record_is_the_same_again_and_plain_json(bundle, frames, monkeypatch):
    monkeypatch.setattr(check, "QUICK", ("grad_cam", "gradient_rollout"))
    monkeypatch.setattr(check, "choose_explainer", lambda found: "grad_cam" if found else None)
    one, two = (check_explainers(bundle.backbone, bundle.head, frames, GROUPS, plan()) for _ in range(2))
    assert json.loads(json.dumps(one, allow_nan=False)) == one == two
    assert set(one["explainers"]) == {"grad_cam", "gradient_rollout"}, "one beats: no second round"
    assert one["explainers"]["grad_cam"]["less_random"]["n"] == one["sampled"] == 4


def test_time_is_looked_at_between_images(bundle, frames, monkeypatch):
    monkeypatch.setattr(check, "QUICK", ("grad_cam",))
    monkeypatch.setattr(check, "choose_explainer", lambda found: "grad_cam" if found else None)
    for step, images in ((4, 3), (100, 1), (0, 4)):
        found = check_explainers(bundle.backbone, bundle.head, frames, GROUPS, plan(step))
        assert found["explainers"]["grad_cam"]["less_random"]["n"] == images


def test_the_others_are_measured_where_no_quick_one_beats_random(bundle, frames, monkeypatch):
    monkeypatch.setattr(check, "QUICK", ("grad_cam",))
    monkeypatch.setattr(check, "available_explainers", lambda *_: {"grad_cam": "", "vit_cx_layers": ""})
    found = check_explainers(bundle.backbone, bundle.head, frames, GROUPS, plan(images=2))
    assert found["chosen"] is None and set(found["explainers"]) == {"grad_cam", "vit_cx_layers"}


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({"vit_cx": figures(0.01), "grad_cam": figures(0.2, value=0.5)}, "vit_cx"),
        ({"vit_cx": figures(-0.01), "grad_cam": figures(0.2, 0.3), "rise": figures(0.1, 0.4)}, "rise"),
        ({"vit_cx": figures(0.0), "grad_cam": figures(-0.1)}, None),
        ({"vit_cx": figures(0.2, groups=FEWEST_GROUPS - 1)}, None),
        ({"vit_cx": figures(None)}, None),
        ({}, None),
    ],
)
def test_vit_cx_where_it_beats_random_else_the_best_that_does(found, chosen):
    assert choose_explainer(found) == chosen
