"""Tests of the synthetic demo."""

import numpy as np


def generators(seed: int):
    """The patient's and the picture's randomness of a test."""
    return np.random.default_rng([1, seed]), np.random.default_rng([2, seed])
