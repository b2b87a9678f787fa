import numpy as np

from medssl.demo.cells import crowd, lattice, outlines, spread, through_stain
from medssl.demo.drawing import SIDE, fill, noise_field


def test_noise_is_centered_smooth_and_seeded():
    first, again, other = (noise_field(np.random.default_rng(seed), 20, 2) for seed in (0, 0, 1))
    assert first.shape == (SIDE, SIDE) and np.array_equal(first, again) and not np.array_equal(first, other)
    assert abs(first.mean()) < 1e-3 and abs(first.std() - 1) < 1e-3
    assert np.abs(np.diff(first, axis=0)).max() < 0.8 and np.abs(np.diff(first, axis=1)).max() < 0.8


def test_lattice_covers_the_picture_evenly():
    points = lattice(np.random.default_rng(0), 16, jitter=0.1, margin=16)
    counts, *_ = np.histogram2d(*points.T, bins=4, range=((0, SIDE), (0, SIDE)))
    assert counts.min() > 0.6 * counts.max()
    assert (points > -16).all() and (points < SIDE + 16).all()


def test_a_round_outline_has_its_radius_wherever_it_lies_even_across_the_edge():
    random = np.random.default_rng(0)
    centers = np.array([[60.3, 100.8], [150.0, 0.0]])
    discs = spread(fill(outlines(random, centers, np.array([9.0, 9.0]), 14, roughness=0)), centers)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for (row, column), share in zip(centers, (1, 0.5), strict=True):
        near = np.hypot(rows - row, columns - column) < 14
        assert abs(discs[near].sum() - share * np.pi * 81) < 12
    assert abs((discs * rows)[:, 50:].sum() / discs[:, 50:].sum() - 60.3) < 0.1


def test_spread_merges_what_overlaps():
    centers, windows = np.array([[50.0, 50.0], [50.0, 52.0]]), np.ones((2, 5, 5), np.float32)
    assert spread(windows, centers, np.maximum).max() == 1 and spread(windows, centers, np.add).max() == 2


def test_walls_lie_between_cells_only():
    walls = crowd(np.array([[100.0, 90.0], [100.0, 110.0]]), 20)
    assert walls[100, 100] > 0.99 and walls[100, 90] < 0.01 and walls[20, 20] == 0


def test_stain_darkens_by_its_own_color():
    amount = np.zeros((SIDE, SIDE), np.float32)
    amount[0, 0] = 1
    image = through_stain(np.ones(3), (amount, np.array([0.0, 1.0, 2.0])))
    assert np.allclose(image[0, 0], np.exp([0, -1, -2])) and np.allclose(image[1:], 1)
