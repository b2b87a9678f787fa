import numpy as np

from medssl.demo import brain
from tests.demo import generators


def test_a_glioma_is_dark_in_its_core_and_the_other_tumours_are_not():
    contrast = {}
    for label in ("glioma", "meningioma", "pituitary"):
        cores = []
        for seed in range(8):
            image, mask = brain.draw(label, *generators(seed))
            rows, columns = np.nonzero(mask)
            inner = np.hypot(rows - rows.mean(), columns - columns.mean()) < 0.35 * np.sqrt(mask.sum() / np.pi)
            gray = image[..., 0]
            cores.append(gray[rows[inner], columns[inner]].mean() - gray[mask].mean())
        contrast[label] = np.median(cores)
    assert contrast["glioma"] < -0.05 < min(contrast["meningioma"], contrast["pituitary"])


def test_a_pituitary_tumour_lies_on_the_midline_and_a_meningioma_does_not_have_to():
    offset = {}
    for label in ("meningioma", "pituitary"):
        offset[label] = []
        for seed in range(12):
            image, mask = brain.draw(label, *generators(seed))
            head = np.flatnonzero((image[..., 0] > 0.1).sum(0) > 20)
            offset[label].append(abs(np.nonzero(mask)[1].mean() - head.mean()))
    assert max(offset["pituitary"]) < 12 < np.median(offset["meningioma"])
