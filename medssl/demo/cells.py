"""What the phantoms of stained cells share: many outlines in one pass, where cells lie, and how stain darkens light."""

from __future__ import annotations

import numpy as np

from medssl.demo.drawing import SIDE


def lattice(random: np.random.Generator, spacing: float, jitter: float = 0.22, margin: float = 16) -> np.ndarray:
    """Evenly scattered points (y, x) `[N, 2]` in pixels, about `spacing` apart, over the picture and a margin."""
    reach = int(np.ceil((SIDE / 2 + margin) * 1.5 / (spacing * 0.87)))
    row, column = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    points = np.stack([row * 0.87, column + row % 2 * 0.5], -1) * spacing + random.normal(
        0, jitter * spacing, (len(row), 2)
    )
    angle = random.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = points @ turn + SIDE / 2 + random.uniform(-spacing, spacing, 2)
    return points[((points > -margin) & (points < SIDE + margin)).all(1)]


def outlines(
    random: np.random.Generator,
    centers: np.ndarray,
    radii: np.ndarray,
    reach: int,
    roughness: float = 0.05,
    stretch: np.ndarray | float = 1.0,
    angles: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Signed distances of N closed outlines, float32 `[N, w, w]` in pixels, positive inside; w is 2 `reach` + 1.

    `centers` `[N, 2]`, `radii` `[N]` in pixels; `angles` turns the long axis away from x. `spread` lays them down.
    """
    count = len(centers)
    radii = np.asarray(radii, np.float32)
    stretch = np.sqrt(np.broadcast_to(np.asarray(stretch, np.float32), count))[:, None, None]
    angles = np.broadcast_to(np.asarray(angles, np.float32), count)[:, None, None]
    line = np.arange(-reach, reach + 1, dtype=np.float32)
    rest = (centers - np.floor(centers)).astype(np.float32)
    y, x = line[None, :, None] - rest[:, 0, None, None], line[None, None, :] - rest[:, 1, None, None]
    along = (np.cos(angles) * x + np.sin(angles) * y) / stretch
    across = (np.cos(angles) * y - np.sin(angles) * x) * stretch
    distance = np.hypot(along, across)
    cosine, sine = along / (distance + 1e-6), across / (distance + 1e-6)
    outline = np.ones_like(distance)
    wave_cosine, wave_sine = cosine, sine
    for wave in (2, 3, 4):
        wave_cosine, wave_sine = wave_cosine * cosine - wave_sine * sine, wave_sine * cosine + wave_cosine * sine
        first, second = random.normal(0, roughness / wave**0.5, (2, count, 1, 1)).astype(np.float32)
        outline += first * wave_cosine + second * wave_sine
    return radii[:, None, None] * outline - distance


def spread(values: np.ndarray, centers: np.ndarray, merge: np.ufunc = np.maximum, start: float = 0.0) -> np.ndarray:
    """Windows `[N, w, w]` laid down around their centres `[N, 2]` and merged, float32 `[SIDE, SIDE]`."""
    width = values.shape[-1]
    canvas = np.full((SIDE + 2 * width, SIDE + 2 * width), start, np.float32)
    inside = ((centers > -width / 2) & (centers < SIDE + width / 2)).all(1)
    corners = np.floor(centers[inside]).astype(int) - width // 2 + width
    line = np.arange(width)
    places = (corners[:, 0, None, None] + line[:, None]) * len(canvas) + corners[:, 1, None, None] + line
    merge.at(canvas.ravel(), places.ravel(), values[inside].astype(np.float32).ravel())
    return canvas[width:-width, width:-width]


def crowd(centers: np.ndarray, spacing: float) -> np.ndarray:
    """How close pixels are to the wall between two cells, float32 `[SIDE, SIDE]`: 0 inside, 1 on the wall."""
    reach = int(spacing * 1.1)
    line = np.arange(-reach, reach + 1, dtype=np.float32)
    rest = (centers - np.floor(centers)).astype(np.float32)[:, :, None, None]
    distance = np.hypot(line[None, :, None] - rest[:, 0], line[None, None, :] - rest[:, 1])
    near = np.exp(-distance / (spacing * 0.06))
    most, whole = spread(near, centers), spread(near, centers, np.add)
    return np.clip(2 - 2 * (most + 1e-9) / (whole + 1e-9), 0, 1)


def through_stain(light: np.ndarray, *stains: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The light `[3]` or `[SIDE, SIDE, 3]` that passes stains, each (amount `[SIDE, SIDE]`, absorbance `[3]`)."""
    absorbance = sum(amount[..., None] * np.asarray(color, np.float32) for amount, color in stains)
    return (light * np.exp(-absorbance)).astype(np.float32)
