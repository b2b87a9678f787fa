"""The objectives' losses against slow plain versions."""

import numpy as np
import pytest
import torch

from medssl.pretrain.byol import byol_loss
from medssl.pretrain.dino import PrototypeHead, cross_entropy, koleo, random_masks, sinkhorn
from medssl.pretrain.objective import ema_momentum, move_average
from medssl.pretrain.simclr import nt_xent


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_sinkhorn_equals_plain_alternating_normalization():
    cosines = torch.nn.functional.normalize(draw(10, 6), dim=1).double()
    scores = np.exp(cosines.numpy() / 0.06)
    scores /= scores.sum()
    for _ in range(3):
        scores /= scores.sum(axis=0, keepdims=True) * scores.shape[1]
        scores /= scores.sum(axis=1, keepdims=True) * scores.shape[0]
    assert np.allclose(sinkhorn(cosines, 0.06).numpy(), scores * len(scores), atol=1e-5)


def test_sinkhorn_uses_every_prototype_where_a_softmax_would_use_one():
    cosines = torch.rand(64, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    cosines[:, 0] += 0.8
    assert torch.softmax(cosines / 0.06, 1).mean(0)[0] > 0.9
    assert sinkhorn(cosines, 0.06).mean(0).max() < 0.2
    assert torch.allclose(sinkhorn(cosines, 0.06).sum(1), torch.ones(64))


def test_cross_entropy_equals_the_sum_over_prototypes():
    student, teacher = draw(5, 7), torch.softmax(draw(5, 7, seed=1), 1)
    for row in range(5):
        scaled = student[row] / 0.1
        logs = scaled - scaled.exp().sum().log()
        assert torch.isclose(cross_entropy(student, teacher, 0.1)[row], -(teacher[row] * logs).sum(), rtol=1e-4)


def test_koleo_equals_the_mean_log_distance_to_the_nearest_other():
    features = draw(12, 4)
    points = features / features.norm(dim=1, keepdim=True)
    logs = []
    for i in range(12):
        logs.append(min((points[i] - points[j]).norm() for j in range(12) if j != i).log())
    assert torch.isclose(koleo(features), -torch.stack(logs).mean(), atol=1e-5)


def test_koleo_falls_as_features_spread():
    near = torch.ones(8, 4) + 0.01 * draw(8, 4)
    assert koleo(draw(8, 4)) < koleo(near)


def test_nt_xent_equals_loops_over_pairs():
    first, second = draw(4, 3), draw(4, 3, seed=1)
    every = torch.nn.functional.normalize(torch.cat([first, second]), dim=1)
    terms = []
    for i in range(8):
        partner = (i + 4) % 8
        others = torch.stack([(every[i] @ every[j] / 0.2).exp() for j in range(8) if j != i])
        terms.append(-((every[i] @ every[partner] / 0.2).exp() / others.sum()).log())
    assert torch.isclose(nt_xent(first, second, 0.2), torch.stack(terms).mean(), atol=1e-5)


def test_nt_xent_prefers_aligned_pairs():
    views = draw(16, 8)
    assert nt_xent(views, views + 0.01 * draw(16, 8, seed=2), 0.1) < nt_xent(views, draw(16, 8, seed=3), 0.1)


def test_byol_loss_is_the_distance_of_unit_vectors():
    prediction, target = draw(6, 5), draw(6, 5, seed=1)
    a, b = prediction / prediction.norm(dim=1, keepdim=True), target / target.norm(dim=1, keepdim=True)
    assert torch.isclose(byol_loss(prediction, target), ((a - b) ** 2).sum(1).mean())
    assert byol_loss(prediction, 3 * prediction).abs() < 1e-5


def test_prototype_logits_are_cosines():
    head = PrototypeHead(12, 16, 8, 20)
    logits = head(draw(9, 12) * 10)
    assert logits.shape == (9, 20)
    assert logits.abs().max() <= 1 + 1e-5


def test_masks_hide_the_stated_share_of_about_half_the_views():
    masks = random_masks(400, 7, torch.Generator().manual_seed(0))
    share = masks.float().mean(1)
    hidden = share[share > 0]
    assert 150 < len(hidden) < 250
    assert hidden.max() <= 0.75 and 0.2 < hidden.mean() < 0.4
    again = random_masks(400, 7, torch.Generator().manual_seed(0))
    assert torch.equal(masks, again)


def test_a_mask_is_always_there_for_the_patch_loss():
    for seed in range(20):
        assert random_masks(2, 3, torch.Generator().manual_seed(seed)).any()


def test_momentum_rises_from_its_start_to_one():
    values = [ema_momentum(0.99, share) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert values[0] == pytest.approx(0.99) and values[-1] == pytest.approx(1)
    assert values == sorted(values)


def test_moving_average_of_parameters_and_copies_of_buffers():
    slow, fast = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        slow.weight.fill_(1), fast.weight.fill_(3), fast.running_mean.fill_(7)
    move_average(slow, fast, 0.75)
    assert torch.allclose(slow.weight, torch.full((3,), 1.5))
    assert torch.equal(slow.running_mean, fast.running_mean)
