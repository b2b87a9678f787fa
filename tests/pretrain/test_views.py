"""Views: geometry and colour by policy, seeded."""

import pytest
import torch

from medssl.data.tasks import TASKS
from medssl.pretrain.views import (
    FIELDS,
    POLICIES,
    Crops,
    ViewPolicy,
    color_matrices,
    crop_views,
    policy_table,
)

STILL = ViewPolicy(
    horizontal_flip=False, rotation=0, brightness=0, contrast=0, saturation=0, hue=0, gray=0, blur=0, noise=0
)


def table(policy, count=1):
    return torch.tensor([[float(getattr(policy, field)) for field in FIELDS]] * count)


def images(count=4, side=32, seed=0):
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed)).byte()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_whole_image_unchanged_where_nothing_may_change():
    given = images()
    views = crop_views(given, table(STILL, 4), Crops(32, (1.0, 1.0), 1), seeded())
    # Only the aspect ratio is drawn: an area of 1 leaves at most 1 of each side, so one side may be cropped.
    ratios = [(view - image / 255).abs().mean() for view, image in zip(views, given, strict=True)]
    assert views.shape == (4, 3, 32, 32)
    assert all(ratio < 0.4 for ratio in ratios)
    flat = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    assert torch.allclose(crop_views(flat, table(STILL), Crops(8, (0.2, 1.0), 3), seeded()), torch.tensor(100 / 255))


def test_views_of_one_image_come_in_order():
    given = torch.stack([torch.full((3, 16, 16), value, dtype=torch.uint8) for value in (0, 100, 200)])
    views = crop_views(given, table(STILL, 3), Crops(8, (0.3, 1.0), 2), seeded())
    assert torch.allclose(views.mean((1, 2, 3)) * 255, torch.tensor([0.0, 100, 200, 0, 100, 200]), atol=0.01)


def test_same_seed_same_views_and_other_seed_other_views():
    policies = policy_table(["lung", "brain", "eye", "default"])
    crops = Crops(24, (0.3, 1.0), 2)
    first, again, other = (crop_views(images(), policies, crops, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_rotated_crop_keeps_shapes():
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    disc = (((x - 64) ** 2 + (y - 64) ** 2 < 900) * 255).byte().expand(64, 3, 128, 128)
    policy = ViewPolicy(rotation=180, brightness=0, contrast=0, saturation=0, blur=0, noise=0)
    for view in crop_views(disc, table(policy, 64), Crops(98, (0.9, 1.0), 1), seeded()):
        spread = torch.linalg.eigvalsh(torch.cov((view[0] > 0.5).nonzero().float().T))
        assert (spread[1] / spread[0]).sqrt() < 4 / 3 + 0.02


def test_area_of_crops_lies_in_the_scale():
    ramp = torch.arange(256).byte().expand(1, 3, 256, 256)
    views = crop_views(ramp.repeat(200, 1, 1, 1), table(STILL, 200), Crops(64, (0.25, 0.25), 1), seeded())
    widths = (views[:, 0, 0, -1] - views[:, 0, 0, 0]) * 255 / 256
    assert 0.4 < widths.min() and widths.max() < 0.6


def test_flips_only_where_the_policy_allows():
    ramp = torch.arange(64).mul(4).byte().expand(50, 3, 64, 64)
    for flips, expected in ((False, {1}), (True, {1, -1})):
        policy = ViewPolicy(horizontal_flip=flips, rotation=0, brightness=0, contrast=0, saturation=0, blur=0, noise=0)
        views = crop_views(ramp, table(policy, 50), Crops(32, (0.5, 1.0), 1), seeded())
        assert {int(torch.sign(view[0, 0, -1] - view[0, 0, 0])) for view in views} == expected


def test_color_matrices_keep_gray_and_are_identity_at_rest():
    matrix = color_matrices(torch.tensor([1.0, 0.3, 1.0]), torch.tensor([0.0, 0.0, 0.5]))
    assert torch.allclose(matrix[0], torch.eye(3), atol=1e-6)
    assert torch.allclose(matrix @ torch.ones(3), torch.ones(3, 3), atol=1e-6)
    assert not torch.allclose(matrix[2], torch.eye(3), atol=0.05)


def test_gray_slices_stay_gray():
    gray = images()[:, :1].repeat(1, 3, 1, 1)
    views = crop_views(gray, policy_table(["brain"] * 4), Crops(24, (0.3, 1.0), 2), seeded())
    assert (views.amax(1) - views.amin(1)).max() < 1e-5


def test_stains_keep_their_hue_and_photographs_do_not():
    red = torch.zeros(200, 3, 8, 8, dtype=torch.uint8)
    red[:, 0], red[:, 1:] = 200, 60
    spread = {}
    for name in ("lung", "photograph"):
        views = crop_views(red, policy_table([name] * 200), Crops(8, (0.5, 1.0), 1), seeded())
        spread[name] = (views[:, 0] - views[:, 1]).mean((1, 2)).std()
    assert spread["lung"] < 0.1 < spread["photograph"]


def test_every_real_task_has_views_of_its_own():
    assert {name for name, task in TASKS.items() if not task.synthetic} <= set(POLICIES)


@pytest.mark.parametrize("name", POLICIES)
def test_views_stay_in_range(name):
    views = crop_views(images(16), policy_table([name] * 16), Crops(20, (0.1, 1.0), 2), seeded())
    assert torch.isfinite(views).all() and views.min() >= 0 and views.max() <= 1
