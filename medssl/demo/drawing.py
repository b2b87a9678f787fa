"""What the phantoms of all tasks are drawn with: noise fields, blobs, and the camera at the end."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

SIDE = 224


def noise_field(random: np.random.Generator, cell: float, octaves: int = 1, side: int = SIDE) -> np.ndarray:
    """Smooth noise float32 `[side, side]` of mean 0 and deviation 1: a cubic B-spline through white noise.

    `cell` is the distance of its knots in pixels; each further octave halves it and counts half as much.
    """
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1)
        count = int(np.ceil(side / step)) + 5
        coarse = random.standard_normal((count, count)).astype(np.float32)
        for _ in range(2):
            place = np.arange(side) / step + random.random()
            first, t = place.astype(int), (place % 1).astype(np.float32)[:, None]
            weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
            coarse = sum(weight * coarse[first + tap] for tap, weight in enumerate(weights)).T
        total += coarse / coarse.std() / 2**octave
    return (total - total.mean()) / (total.std() + 1e-6)


def blob(
    random: np.random.Generator,
    center: tuple[float, float],
    radius: float,
    roughness: float = 0.15,
    lobes: int = 5,
    stretch: float = 1.0,
    angle: float = 0.0,
    side: int = SIDE,
) -> np.ndarray:
    """A signed distance-like field float32 `[side, side]`, in pixels, positive inside an irregular closed outline.

    `center` (y, x) and `radius` in pixels; `roughness` is the relative deviation of the outline, made of `lobes` waves;
    `stretch` is the ratio of the axes. `np.clip(field + 0.5, 0, 1)` is an antialiased fill.
    """
    y, x = np.mgrid[:side, :side].astype(np.float32)
    y, x = y - center[0], x - center[1]
    cos, sin = np.cos(angle), np.sin(angle)
    along, across = (cos * x + sin * y) / np.sqrt(stretch), (-sin * x + cos * y) * np.sqrt(stretch)
    distance = np.hypot(along, across)
    # cos and sin of the multiples of the angle by recurrence: no trigonometry per pixel.
    cosine, sine = along / (distance + 1e-6), across / (distance + 1e-6)
    outline, wave_cosine, wave_sine = np.ones_like(distance), cosine, sine
    for wave in range(2, lobes + 1):
        wave_cosine, wave_sine = wave_cosine * cosine - wave_sine * sine, wave_sine * cosine + wave_cosine * sine
        amplitude, phase = random.normal(0, roughness / wave**0.5), random.uniform(0, 2 * np.pi)
        outline += amplitude * (np.cos(phase) * wave_cosine - np.sin(phase) * wave_sine)
    return radius * outline - distance


def fill(field: np.ndarray, soft: float = 1.0) -> np.ndarray:
    """The opacity `[h, w]`, 0 to 1, of a signed field in pixels, with an edge `soft` pixels wide."""
    return np.clip(field / soft + 0.5, 0, 1)


def blend(below: np.ndarray, above: np.ndarray | tuple[float, ...], alpha: np.ndarray) -> np.ndarray:
    """`above` over `below` with the opacity alpha `[h, w]` in 0 to 1; either may be `[h, w]` or `[h, w, C]`."""
    alpha = alpha[..., None] if below.ndim == 3 else alpha
    return below * (1 - alpha) + np.asarray(above, np.float32) * alpha


def camera(
    image: np.ndarray,
    random: np.random.Generator,
    blur: tuple[float, float] = (0.3, 0.9),
    noise: tuple[float, float] = (0.004, 0.02),
) -> np.ndarray:
    """What optics and sensor add: a blur and noise whose strengths (pixels; deviation) are drawn from those ranges."""
    sigma = random.uniform(*blur)
    image = gaussian_filter(image, (sigma, sigma, 0) if image.ndim == 3 else sigma)
    return image + random.normal(0, random.uniform(*noise), image.shape)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Values in 0 to 1 as uint8."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
