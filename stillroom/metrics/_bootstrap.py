"""How far a figure would move with other images: image bootstrap, seeded by what was seen and not by a clock."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
"""Resamples behind an interval: its ends then move by about a fiftieth of its length from one seed to another."""


def resamples(images: int, content: bytes, *, count: int = RESAMPLES) -> NDArray[np.int64]:
    """How often each image is drawn: `images` draws with replacement, `count` times.

    Args:
        images: N, at least 1.
        content: seeds the draws; the bytes of whatever the figure is made of, in an order that does not depend on how
            the images came.
        count: resamples.

    Returns:
        [count, N], each row sums to N.
    """
    seed = int.from_bytes(hashlib.sha256(content).digest()[:16], "little")
    drawn = np.random.default_rng(seed).integers(0, images, (count, images))
    # One bincount for all rows: the i-th row's images are numbered from i * N.
    drawn += np.arange(count)[:, None] * images
    return np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).astype(np.int64)


def interval(values: NDArray[np.float64], figure: float) -> tuple[float, float] | None:
    """Where 95 % of the resampled values lie: their 2.5th and 97.5th percentile (Efron 1979,
    https://doi.org/10.1214/aos/1176344552), widened where needed to hold the figure itself.

    Args:
        values: one a resample; NaN where a resample has none.
        figure: the value of the images as they are.

    Returns:
        the ends; None where hardly any resample has a value.
    """
    found = values[~np.isnan(values)]
    if len(found) < len(values) / 2 or not len(found):
        return None
    low, high = np.percentile(found, (2.5, 97.5))
    return min(float(low), figure), max(float(high), figure)
