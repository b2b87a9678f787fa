"""The pointing game against counting by hand, and its control at chance."""

import numpy as np
import pytest

from medssl.errors import DataError
from medssl.explain.faithfulness import pointing_hit, random_heatmap


def test_a_hit_is_a_maximum_inside_and_a_miss_one_outside():
    heatmap, mask = np.zeros((6, 8)), np.zeros((6, 8), bool)
    heatmap[2, 3], mask[1:4, 2:5] = 1, True
    assert pointing_hit(heatmap, mask) == 1
    assert pointing_hit(heatmap, ~mask) == 0


def test_a_flat_map_scores_as_chance():
    mask = np.zeros((10, 10), bool)
    mask[:2] = True
    assert pointing_hit(np.zeros((10, 10)), mask) == pytest.approx(0.2)


def test_random_maps_are_seeded_smooth_and_hit_about_as_often_as_the_mask_is_large():
    maps = [random_heatmap(60, 80, seed) for seed in range(400)]
    assert maps[0].shape == (60, 80) and maps[0].min() == 0 and maps[0].max() == 1
    assert np.array_equal(maps[3], random_heatmap(60, 80, 3)) and not np.array_equal(maps[3], maps[4])
    assert np.abs(np.diff(maps[0], axis=1)).mean() < 0.1
    mask = np.zeros((60, 80), bool)
    mask[15:45, 20:60] = True
    assert np.mean([pointing_hit(heatmap, mask) for heatmap in maps]) == pytest.approx(0.25, abs=0.07)


def test_shapes_and_empty_masks_are_refused():
    with pytest.raises(DataError, match="empty"):
        pointing_hit(np.zeros((4, 4)), np.zeros((4, 4), bool))
    with pytest.raises(DataError, match=r"\(4, 4\) and the mask \(4, 5\)"):
        pointing_hit(np.zeros((4, 4)), np.ones((4, 5), bool))
