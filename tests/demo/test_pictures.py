"""What the drawings of all four tasks promise: seeds, shapes, masks, and that trivial features do not tell labels."""

import numpy as np
import pytest
from PIL import Image

from medssl.audit.shortcuts import probe_features, trivial_features
from medssl.data.tasks import TASKS
from medssl.demo import brain, eye, leukaemia, lung
from medssl.demo.drawing import SIDE, to_uint8

MODULES = {"lung": lung, "brain": brain, "leukaemia": leukaemia, "eye": eye}
CLASSES = [(task, label) for task, module in MODULES.items() for label in module.LABELS]
# The least and the most of the picture that a mask covers.
AREAS = {
    ("lung", "adenocarcinoma"): (0.08, 0.6),
    ("lung", "squamous_cell_carcinoma"): (0.2, 0.6),
    ("brain", "glioma"): (0.005, 0.08),
    ("brain", "meningioma"): (0.004, 0.06),
    ("brain", "pituitary"): (0.005, 0.05),
    ("leukaemia", "early"): (0.05, 0.3),
    ("leukaemia", "pre"): (0.05, 0.3),
    ("leukaemia", "pro"): (0.05, 0.3),
    ("eye", "cataract"): (0.03, 0.5),
    ("eye", "diabetic_retinopathy"): (0.002, 0.09),
    ("eye", "glaucoma"): (0.015, 0.06),
}
PER_LABEL = 40


def drawn(task, label, patient=0, picture=0):
    return MODULES[task].draw(label, np.random.default_rng([1, patient]), np.random.default_rng([2, picture]))


@pytest.mark.parametrize("task", MODULES)
def test_labels_are_those_of_the_real_task(task):
    assert MODULES[task].LABELS == TASKS[task].labels


@pytest.mark.parametrize(("task", "label"), CLASSES)
def test_the_same_seeds_give_the_same_bytes_and_others_do_not(task, label):
    image, mask = drawn(task, label)
    again, mask_again = drawn(task, label)
    assert image.tobytes() == again.tobytes() and mask.tobytes() == mask_again.tobytes()
    for other, _ in (drawn(task, label, patient=1), drawn(task, label, picture=1)):
        assert np.abs(other - image).mean() > 0.01


@pytest.mark.parametrize(("task", "label"), CLASSES)
def test_images_and_masks_have_their_shape_range_and_area(task, label):
    smallest, largest = AREAS.get((task, label), (0, 0))
    for seed in range(10):
        image, mask = drawn(task, label, seed, seed)
        assert image.shape == (SIDE, SIDE, 3) and image.dtype == np.float32
        assert mask.shape == (SIDE, SIDE) and mask.dtype == bool
        assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.05
        assert smallest <= mask.mean() <= largest, mask.mean()


@pytest.mark.parametrize("task", MODULES)
def test_trivial_features_do_not_tell_the_classes_apart(task):
    labels = MODULES[task].LABELS
    wanted = [(code, label, 1000 * code + index) for code, label in enumerate(labels) for index in range(PER_LABEL)]
    features = [
        trivial_features(Image.fromarray(to_uint8(drawn(task, label, index // 2, index)[0])))
        for _, label, index in wanted
    ]
    codes, groups = np.array([code for code, _, _ in wanted]), np.array([index // 2 for _, _, index in wanted])
    found = probe_features(features, codes, groups, list(labels), seed=0)
    assert len(found) == 6
    assert max(shortcut.balanced_accuracy for shortcut in found) < 0.6, found
