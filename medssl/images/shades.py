"""Wide or odd values as 8-bit shades of grey."""

from __future__ import annotations

import numpy as np

from medssl.errors import ImageError

SIXTEEN_BIT = 65535
PERCENTILE_VALUES = 4_000_000  # more are thinned evenly: a percentile needs no copy of 50 megapixels


def to_shades(shares: np.ndarray) -> np.ndarray:
    """Shares of 0 to 1 as uint8; what lies outside is clipped and what is no number is black."""
    return np.round(np.clip(np.nan_to_num(shares, nan=0.0), 0, 1) * 255).astype(np.uint8)


def stretched(values: np.ndarray, counted: np.ndarray | None = None, tail: float = 0.1) -> np.ndarray:
    """Numbers `[H, W]` as uint8, stretched from their `tail`th to their (100 - tail)th percentile.

    `counted` (bool `[H, W]`) says which of them the percentiles are of. NaN becomes black, one value mid-grey. Raises
    ImageError when no value is finite.
    """
    chosen = values[counted] if counted is not None and counted.any() else values.ravel()
    sample = chosen[:: chosen.size // PERCENTILE_VALUES + 1]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        sample = values[np.isfinite(values)]
    if not sample.size:
        raise ImageError("The image holds no finite value, so there is nothing to see. Export it again.")
    low, high = np.percentile(sample, (tail, 100 - tail))
    if not high > low:
        low, high = float(sample.min()), float(sample.max())
    if not high > low:
        return np.full(values.shape, 128, np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        return to_shades((values.astype(np.float64) - low) / (high - low))


def sixteen_bit_shades(values: np.ndarray) -> np.ndarray:
    """Wide greys `[H, W]` of a picture file as uint8.

    They are stretched from their 0.1st to their 99.9th percentile, because scanners fill 12 of 16 bits; the more of 16
    bits they fill the less, from half of the range on, and from nine tenths on not at all. 8-bit values that were
    written as 16 bits come back as they were. Raises ImageError when no value is finite.
    """
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > SIXTEEN_BIT:
        return stretched(values)
    if values.max() > 255 and not (values % 257).any():
        return (values // 257).astype(np.uint8)
    sample = values.ravel()[:: values.size // PERCENTILE_VALUES + 1]
    low, high = np.percentile(sample, (0.1, 99.9))
    filled = (high - low) / SIXTEEN_BIT
    weight = min(1.0, max(0.0, (filled - 0.5) / 0.4))
    if weight == 0:
        return stretched(values)
    low, high = low * (1 - weight), high + (SIXTEEN_BIT - high) * weight
    return to_shades((values.astype(np.float64) - low) / (high - low))


def scaled(values: np.ndarray, top: float) -> np.ndarray:
    """Values of 0 to `top` as uint8, nothing stretched."""
    if values.dtype == np.uint8 and top == 255:
        return np.ascontiguousarray(values)
    return to_shades(values.astype(np.float64) / top)
