"""RISE against a literal version: mask by mask, with the interpolation written out."""

import numpy as np
import pytest
import torch

from medssl.explain.rise import CELLS, MASKS, RISE, random_mask
from tests.explain.test_vit_cx import FAMILIES, make, picture


def plain_masks(size, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(MASKS):
        cells = (torch.rand(1, 1, 7, 7, generator=generator) < 0.5).float()[0, 0].numpy()
        height, width = -(-size[0] // 7), -(-size[1] // 7)
        top = int(torch.randint(height, (), generator=generator))
        left = int(torch.randint(width, (), generator=generator))
        mask = np.zeros(size)
        for row in range(size[0]):
            for column in range(size[1]):
                y = min(max((row + top + 0.5) * 7 / (8 * height) - 0.5, 0), 6)
                x = min(max((column + left + 0.5) * 7 / (8 * width) - 0.5, 0), 6)
                y0, x0 = int(y), int(x)
                y1, x1 = min(y0 + 1, 6), min(x0 + 1, 6)
                upper = cells[y0, x0] * (1 - x + x0) + cells[y0, x1] * (x - x0)
                lower = cells[y1, x0] * (1 - x + x0) + cells[y1, x1] * (x - x0)
                mask[row, column] = upper * (1 - y + y0) + lower * (y - y0)
        yield torch.from_numpy(mask).float()


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_plain_version(family, tmp_path):
    step = FAMILIES[family]
    size = (step, step * 2)
    backbone, head = make(family, tmp_path, size)
    head.temperature = 2e4 if family == "resnet" else 5.0  # its random features saturate the probabilities
    explanation = RISE(backbone, head).explain(picture(), target="b", seed=4)
    pixels = backbone.pixels([picture()], head.preprocess)
    total, cover = torch.zeros(size), torch.zeros(size)
    for mask in plain_masks(size, 4):
        with torch.no_grad():
            score = head.classify(backbone.forward(pixels * mask))[0, 1]
        total += score * mask
        cover += mask
    np.testing.assert_allclose(explanation.saliency, (total / cover).numpy(), atol=1e-4)
    assert explanation.masks == MASKS and explanation.forward_passes == 1 + MASKS


def test_masks_show_half_on_average_and_stay_in_range():
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([random_mask(torch.Size((50, 90)), generator) for _ in range(400)])
    assert masks.shape == (400, 50, 90) and masks.min() >= 0 and masks.max() <= 1
    assert abs(float(masks.mean()) - 0.5) < 0.02 and float((masks.mean(dim=0) - 0.5).abs().max()) < 0.1
    assert CELLS == 7


def test_a_score_without_change_gives_a_flat_map(tmp_path):
    backbone, head = make("vit", tmp_path, (64, 64))
    head.linear.weight.zero_()
    explanation = RISE(backbone, head).explain(picture())
    np.testing.assert_allclose(explanation.saliency, 1 / 3, atol=1e-6)
    assert not explanation.evidence


def test_the_batch_size_has_no_part_in_the_result(tmp_path, monkeypatch):
    backbone, head = make("vit", tmp_path, (64, 64))
    whole = RISE(backbone, head).explain(picture())
    monkeypatch.setattr(type(backbone), "batch_size", lambda *_: 5)
    reports = []
    parts = RISE(backbone, head).explain(picture(), progress=reports.append)
    np.testing.assert_allclose(parts.saliency, whole.saliency, atol=1e-6)
    assert len(reports) == 26 and reports[-1] == 1 and reports == sorted(reports)
