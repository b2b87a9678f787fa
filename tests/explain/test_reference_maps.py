"""ViT-CX against stored maps of the published algorithm on phantoms: what a bare checkout can check.

They tell masks, classes and pictures apart. The noise modes hardly differ here: test_vit_cx compares each of them with
the plain version exactly.
"""

import numpy as np
import pytest

from medssl.bundle.bundle import Bundle
from medssl.demo.bundles import FOLDER
from tests.explain.references.make import BLOCK, MAPS, PICTURES, in_blocks, pearson, plain_runs

TOLERANCE = 0.03
STORED = dict(np.load(MAPS))


def agreement(number: int, other: int | None = None) -> float:
    """Pearson of the product's map of one picture with its reference (or another picture's)."""
    picture = PICTURES[number]
    explainer = Bundle.load(FOLDER / picture.task).explainer
    reference = STORED[f"map_{number if other is None else other}"].astype(np.float64)
    # The published algorithm knows no cap on the number of masks.
    explanation = explainer.explain(picture.image, max_masks=None)
    assert explanation.masks == STORED["masks"][number]
    assert explanation.target == explainer.head.labels[STORED["target"][number]]
    return pearson(in_blocks(explanation.saliency), reference)


@pytest.mark.parametrize("number", range(len(PICTURES)), ids=lambda number: f"{PICTURES[number].task}-{number}")
def test_the_default_gives_the_published_map(number):
    assert agreement(number) >= STORED["self_correlation"][number] - TOLERANCE


def test_a_map_of_another_picture_does_not_pass():
    assert agreement(0, other=1) < STORED["self_correlation"][0] - TOLERANCE


def test_the_stored_maps_are_those_of_the_plain_version():
    """One run of it, with a seed of its own, on the picture with the fewest masks whose runs are all alike."""
    assert STORED["self_correlation"][3] > 0.99
    (run,), masks, target = plain_runs(PICTURES[3], [7])
    assert masks == STORED["masks"][3] and target == STORED["target"][3]
    assert pearson(run, STORED["map_3"].astype(np.float64)) >= STORED["self_correlation"][3] - TOLERANCE


def test_the_references_are_small_and_whole():
    assert MAPS.stat().st_size <= 100_000
    for number, picture in enumerate(PICTURES):
        side = Bundle.load(FOLDER / picture.task).head.preprocess.size[0]
        reference = STORED[f"map_{number}"]
        assert reference.shape == (side // BLOCK, side // BLOCK) and np.isfinite(reference).all()
    assert (STORED["self_correlation"] > 0.5).all()
