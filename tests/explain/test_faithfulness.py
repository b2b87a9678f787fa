"""Every figure about heatmaps against a slow, plain version, on models whose right answer is known."""

import numpy as np
import pytest
import torch
from PIL import Image

from medssl.backbones.backbone import Backbone
from medssl.errors import DataError
from medssl.explain.faithfulness import (
    BLUR,
    CURVE_METRICS,
    METRICS,
    area,
    blur,
    box_mask,
    curve_passes,
    deletion_insertion,
    energy_inside,
    pointing_hit,
    random_heatmap,
    ranks,
)
from medssl.explain.score import Score
from medssl.heads.head import ClassificationHead
from tests.models import save_model

SIDE, PATCH = 64, slice(16, 32)
SCORE = Score("lit", "class", None)


def corner_score(_score, pixels):
    """How bright one patch is, 0 to 1: the signal is known, so the right heatmap is too."""
    return torch.sigmoid(pixels[:, :, PATCH, PATCH].mean(dim=(1, 2, 3)))


def lit_pixels(seed=0):
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 0.3
    pixels[:, :, PATCH, PATCH] += 3
    return pixels


def true_map():
    values = np.zeros((SIDE, SIDE), np.float32)
    values[PATCH, PATCH] = 1
    return values


def read_patch_model(folder):
    """A ViT and a head that tells a bright patch on black from plain black; the picture, and where the patch is."""
    backbone = Backbone.from_pretrained(save_model("vit", folder), precision="fp32")
    bright = np.zeros((SIDE, SIDE, 3), np.uint8)
    bright[PATCH, PATCH] = 255
    image, dark = Image.fromarray(bright), Image.new("RGB", (SIDE, SIDE))
    one, other = (backbone.encode([picture]).pool("mean") for picture in (image, dark))
    difference, middle = one - other, (one + other) / 2
    weight = torch.cat([difference, -difference]) * 4 / difference.norm() ** 2
    head = ClassificationHead.from_linear(weight, -(weight @ middle[0]), ["lit", "dark"], backbone, "mean")
    return backbone, head, image


def plain_curves(scores, pixels, saliency, steps):
    """One pixel list, one image at a time, for a map without ties."""
    flat = [(-saliency[y, x], y, x) for y in range(saliency.shape[0]) for x in range(saliency.shape[1])]
    order = [(y, x) for _, y, x in sorted(flat)]
    blurred = blur(pixels)
    curves = []
    for kind in ("deletion", "insertion"):
        values = []
        for step in range(steps + 1):
            image = pixels.clone() if kind == "deletion" else blurred.clone()
            for y, x in order[: round(step * len(order) / steps)]:
                image[0, :, y, x] = 0 if kind == "deletion" else pixels[0, :, y, x]
            values.append(float(scores(SCORE, image)[0]))
        curves.append(values)
    return curves


@pytest.mark.parametrize("steps", [1, 5, 14])
def test_curves_equal_the_plain_version(steps):
    pixels = lit_pixels()
    maps = [np.random.default_rng(seed).random((SIDE, SIDE)) for seed in range(2)]
    found = deletion_insertion(corner_score, SCORE, pixels, maps, steps)
    for curves, saliency in zip(found, maps, strict=True):
        deletion, insertion = plain_curves(corner_score, pixels, saliency, steps)
        np.testing.assert_allclose(curves.deletion_scores, deletion, atol=1e-6)
        np.testing.assert_allclose(curves.insertion_scores, insertion, atol=1e-6)
        shares = [round(step * SIDE * SIDE / steps) / SIDE**2 for step in range(steps + 1)]
        assert curves.shares.tolist() == shares
        assert curves.deletion == pytest.approx(np.interp(np.linspace(0, 1, 100001), shares, deletion).mean(), abs=1e-4)
        assert curves.insertion_minus_deletion == pytest.approx(area(curves.shares, np.subtract(insertion, deletion)))


def test_the_true_map_is_better_than_random_and_random_than_its_inverse():
    random = random_heatmap(SIDE, SIDE, 3)
    true, chance, inverted = deletion_insertion(corner_score, SCORE, lit_pixels(), [true_map(), random, -true_map()])
    assert true.deletion < chance.deletion - 0.1 < inverted.deletion - 0.2
    assert true.insertion > chance.insertion > inverted.insertion
    for name in CURVE_METRICS:
        sign = 1 if METRICS[name].higher_is_better else -1
        assert sign * getattr(true, name) > sign * getattr(chance, name) > sign * getattr(inverted, name)


def test_it_holds_on_a_real_backbone_too(tmp_path):
    from medssl.explain import ViTCX
    from medssl.explain.score import class_score

    backbone, head, image = read_patch_model(tmp_path)
    explainer, score = ViTCX(backbone, head), class_score(head, 0)
    pixels = backbone.pixels([image])
    true, inverted = deletion_insertion(explainer.scores, score, pixels, [true_map(), -true_map()])
    assert true.deletion < inverted.deletion and true.insertion_minus_deletion > inverted.insertion_minus_deletion
    # The end points are the scores of the image, of the mean colour and of the blurred image, for every map alike.
    ends = torch.cat([pixels, torch.zeros_like(pixels), blur(pixels)])
    whole, empty, dim = (float(score.values(backbone.forward(end[None]))[0]) for end in ends)
    for curves in (true, inverted):
        assert curves.deletion_scores[[0, -1]] == pytest.approx([whole, empty], abs=1e-6)
        assert curves.insertion_scores[[0, -1]] == pytest.approx([dim, whole], abs=1e-6)


def test_a_constant_score_is_its_own_area():
    curves = deletion_insertion(lambda _s, x: torch.full((len(x),), 0.375), SCORE, lit_pixels(), [true_map()], 7)[0]
    assert curves.deletion == pytest.approx(0.375, abs=1e-12) == curves.insertion
    assert curves.insertion_minus_deletion == 0


def test_many_maps_share_the_end_points_and_no_call_is_large():
    sizes = []

    def scores(score, pixels):
        sizes.append(len(pixels))
        return corner_score(score, pixels)

    maps = [random_heatmap(SIDE, SIDE, seed) for seed in range(5)]
    together = deletion_insertion(scores, SCORE, lit_pixels(), maps, 9)
    assert sum(sizes) == curve_passes(5, 9) == 3 + 5 * 2 * 8 and max(sizes) <= 32
    for curves, saliency in zip(together, maps, strict=True):
        alone = deletion_insertion(corner_score, SCORE, lit_pixels(), [saliency], 9)[0]
        assert curves.deletion_scores.tolist() == alone.deletion_scores.tolist()
    assert deletion_insertion(corner_score, SCORE, lit_pixels(), []) == []


def test_ranks_are_an_order_and_their_ties_are_seeded_and_prefer_no_position():
    saliency = np.random.default_rng(0).random((5, 7))
    places = ranks(saliency)
    assert sorted(places.ravel()) == list(range(35))
    assert (np.argsort(places.ravel()) == np.argsort(-saliency.ravel())).all()
    flat = np.zeros((32, 32))
    assert np.array_equal(ranks(flat, 5), ranks(flat, 5)) and not np.array_equal(ranks(flat, 5), ranks(flat, 6))
    mean = np.mean([ranks(flat, seed) for seed in range(600)], axis=0) / 1023
    # 600 draws of a uniform place: 0.289 / sqrt(600) is one standard error, and the pixels are 1024.
    assert np.abs(mean - 0.5).max() < 5 * 0.289 / np.sqrt(600)
    halves = np.zeros((32, 32))
    halves[:, 16:] = 1
    assert ranks(halves)[:, 16:].max() < ranks(halves)[:, :16].min()


def test_a_flat_map_gains_nothing_over_random_ones_from_its_ties():
    """By single pixels a flat map's order would beat every map of regions in deletion; as broken here it does not."""

    def patches(_score, pixels):
        cells = torch.nn.functional.avg_pool2d(pixels.mean(dim=1, keepdim=True), 8)
        return cells.flatten(1).amax(dim=1)

    def deletion(saliency, seed):
        return deletion_insertion(patches, SCORE, pixels, [saliency], 8, seed)[0].deletion

    pixels = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)) + 1
    flat = np.mean([deletion(np.zeros((SIDE, SIDE)), seed) for seed in range(8)])
    random = np.mean([deletion(random_heatmap(SIDE, SIDE, 100 + seed), 0) for seed in range(8)])
    scattered = np.mean([deletion(np.random.default_rng(seed).random((SIDE, SIDE)), 0) for seed in range(8)])
    assert abs(flat - random) < 0.5 * abs(scattered - random)


@pytest.mark.parametrize(
    ("pixels", "maps", "steps", "message"),
    [
        (torch.zeros(1, 3, 8, 8), [np.zeros((8, 9))], 4, r"\(8, 9\).*\(8, 8\)"),
        (torch.zeros(2, 3, 8, 8), [np.zeros((8, 8))], 4, r"\[2, 3, 8, 8\]"),
        (torch.zeros(1, 3, 8, 8), [np.full((8, 8), np.nan)], 4, "NaN"),
        (torch.zeros(1, 3, 8, 8), [np.zeros((8, 8))], 0, "steps is 0.*64"),
        (torch.zeros(1, 3, 8, 8), [np.zeros((8, 8))], 65, "steps is 65"),
    ],
)
def test_what_does_not_match_is_refused(pixels, maps, steps, message):
    with pytest.raises(DataError, match=message):
        deletion_insertion(corner_score, SCORE, pixels, maps, steps)


def test_the_blur_keeps_the_mean_and_has_the_stated_width():
    pixels = torch.zeros(1, 3, 101, 121)
    pixels[0, 1, 50, 60] = 1
    blurred = blur(pixels)[0].numpy()
    assert blurred[1].sum() == pytest.approx(1, abs=1e-4) and not blurred[0].any() and not blurred[2].any()
    columns = np.arange(121) - 60
    assert (blurred[1].sum(axis=0) * columns**2).sum() == pytest.approx((BLUR * 101) ** 2, rel=0.03)


def test_energy_equals_counting_and_an_empty_map_is_chance():
    heatmap, mask = np.random.default_rng(0).random((6, 8)).astype(np.float32), np.zeros((6, 8), bool)
    mask[1:4, 2:5] = True
    inside = sum(float(heatmap[y, x]) for y in range(6) for x in range(8) if mask[y, x])
    assert energy_inside(heatmap, mask) == pytest.approx(inside / float(heatmap.sum()), rel=1e-6)
    assert energy_inside(np.zeros((6, 8)), mask) == energy_inside(np.full((6, 8), 0.7), mask) == pytest.approx(9 / 48)
    assert energy_inside(mask.astype(float), mask) == 1 and energy_inside((~mask).astype(float), mask) == 0
    for wrong, message in ((-heatmap, "negative"), (np.full((6, 8), np.nan), "finite"), (heatmap[1:], "both must")):
        with pytest.raises(DataError, match=message):
            energy_inside(wrong, mask)


def test_box_masks():
    mask = box_mask((0.25, 0.5, 0.75, 1.0), 10, 8)
    assert mask.shape == (10, 8) and mask[5:, 2:6].all() and mask.sum() == 20
    assert box_mask((0, 0, 1, 1), 3, 5).all()
    tiny = box_mask((0.51, 0.51, 0.52, 0.52), 4, 4)
    assert tiny.sum() == 1 and tiny[2, 2]
    heatmap = np.zeros((10, 8))
    heatmap[7, 3] = 1
    assert pointing_hit(heatmap, mask) == 1 == energy_inside(heatmap, mask)
    for box in ((0.5, 0, 0.4, 1), (0, 0, 1.2, 1), (0, 0.3, 1, 0.3), (float("nan"), 0, 1, 1)):
        with pytest.raises(DataError, match="Allowed: fractions"):
            box_mask(box, 4, 4)


def test_a_planted_better_map_is_better_in_both_pointing_games():
    mask = true_map() > 0
    good = true_map() * 0.9 + random_heatmap(SIDE, SIDE, 0) * 0.1
    bad = (1 - true_map()) * 0.9 + random_heatmap(SIDE, SIDE, 0) * 0.1
    for name, measured in (("pointing", pointing_hit), ("energy", energy_inside)):
        assert METRICS[name].higher_is_better
        assert measured(good, mask) > measured(bad, mask)


def test_metrics_are_named_and_cited():
    for name, metric in METRICS.items():
        assert metric.name == name and metric.title and "arXiv" in metric.paper
        assert isinstance(metric.higher_is_better, bool)
    # Each has a test here, or in test_sanity, of a planted better map.
    assert set(METRICS) == {*CURVE_METRICS, "pointing", "energy", "randomisation"}


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
