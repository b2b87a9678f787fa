import numpy as np

from medssl.demo import leukaemia
from tests.demo import generators


def test_masks_lie_on_the_dark_cells_and_strangers_are_left_out():
    left_out = 0
    for seed in range(8):
        image, mask = leukaemia.draw("pro", *generators(seed))
        green = image[..., 1]
        assert np.median(green[mask]) < np.median(green[~mask]) - 0.1
        left_out += ((green < np.median(green[mask])) & ~mask).sum() > 100
    assert left_out >= 2
