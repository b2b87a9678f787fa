"""Occlusion against a literal version: window by window, pixel by pixel."""

import numpy as np
import pytest
import torch

from medssl.explain.occlusion import Occlusion, starts
from tests.explain.test_vit_cx import FAMILIES, make, picture


def plain_windows(cells):
    """(first, last) of each window along one side."""
    length = max(1, round(cells / 7))
    found, first = [], 0
    while first + length <= cells:
        found.append((first, first + length))
        first += max(1, round(length / 2))
    if found[-1][1] < cells:
        found.append((cells - length, cells))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_plain_version(family, tmp_path):
    step = FAMILIES[family]
    size = (32, 64) if family == "resnet" else (step * 3, step * 11)
    backbone, head = make(family, tmp_path, size)
    head.temperature = 2e4 if family == "resnet" else 5.0  # its random features saturate the probabilities
    unit = 1 if family == "resnet" else step
    explanation = Occlusion(backbone, head).explain(picture(), target="b")
    pixels = backbone.pixels([picture()], head.preprocess)

    def probability(image):
        with torch.no_grad():
            return float(head.classify(backbone.forward(image))[0, 1])

    total, cover, count = np.zeros(size), np.zeros(size), 0
    for top, bottom in plain_windows(size[0] // unit):
        for left, right in plain_windows(size[1] // unit):
            covered = pixels.clone()
            covered[:, :, top * unit : bottom * unit, left * unit : right * unit] = 0
            drop = probability(pixels) - probability(covered)
            total[top * unit : bottom * unit, left * unit : right * unit] += drop
            cover[top * unit : bottom * unit, left * unit : right * unit] += 1
            count += 1
    assert cover.min() >= 1
    np.testing.assert_allclose(explanation.saliency, total / cover, atol=1e-5)
    assert explanation.masks == count and explanation.forward_passes == 1 + count and explanation.evidence


@pytest.mark.parametrize("cells", [1, 2, 3, 7, 14, 15, 16, 37, 224])
def test_windows_cover_the_frame_and_nothing_else(cells):
    window, found = starts(cells)
    assert found == [first for first, _ in plain_windows(cells)]
    covered = {cell for first in found for cell in range(first, first + window)}
    assert covered == set(range(cells)) and window == max(1, round(cells / 7))


def test_the_batch_size_has_no_part_in_the_result(tmp_path, monkeypatch):
    backbone, head = make("vit", tmp_path, (64, 64))
    whole = Occlusion(backbone, head).explain(picture())
    sizes = []
    forward = type(backbone).forward
    monkeypatch.setattr(type(backbone), "batch_size", lambda *_: 3)
    monkeypatch.setattr(
        type(backbone), "forward", lambda self, x, **more: sizes.append(len(x)) or forward(self, x, **more)
    )
    reports = []
    parts = Occlusion(backbone, head).explain(picture(), progress=reports.append)
    np.testing.assert_allclose(parts.saliency, whole.saliency, atol=1e-6)
    assert max(sizes) == 3 and len(reports) == 6 and reports[-1] == 1 and reports == sorted(reports)
