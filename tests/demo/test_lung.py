import numpy as np

from medssl.demo import lung
from tests.demo import generators


def test_only_glands_have_air_inside_the_tumour():
    air = {label: [] for label in ("adenocarcinoma", "squamous_cell_carcinoma")}
    for label, shares in air.items():
        for seed in range(8):
            image, mask = lung.draw(label, *generators(seed))
            gray = image.mean(-1)
            shares.append((gray[mask] > 0.95 * np.quantile(gray, 0.98)).mean())
    assert np.median(air["adenocarcinoma"]) > 3 * np.median(air["squamous_cell_carcinoma"])
