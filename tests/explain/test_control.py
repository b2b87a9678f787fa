"""The control knows the seed and nothing else."""

import numpy as np

from medssl.explain.control import RandomMap
from medssl.explain.faithfulness import random_heatmap
from tests.explain.test_vit_cx import make, picture


def test_it_is_the_random_heatmap_of_the_seed(tmp_path):
    backbone, head = make("vit", tmp_path, (48, 80))
    explainer = RandomMap(backbone, head)
    found = explainer.explain(picture(), seed=5)
    assert np.array_equal(found.saliency, random_heatmap(48, 80, 5))
    assert np.array_equal(found.saliency, explainer.explain(picture(seed=8), target="c", seed=5).saliency)
    assert found.masks == 0 and found.forward_passes == 1 and found.evidence
