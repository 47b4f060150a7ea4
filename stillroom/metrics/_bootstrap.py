"""Image bootstrap: resampling the images of a test set gives the interval of a figure."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
"""Resamples per interval. From one seed to another its ends then move by about a fiftieth of its length."""


def resample_counts(images: int, content: bytes, *, resamples: int = RESAMPLES) -> NDArray[np.int64]:
    """How often each image occurs in each resample. A resample is `images` draws with replacement.

    Args:
        images: N, at least 1.
        content: seed of the draws: the bytes of the data that the figure is computed from, in an order that does not
            depend on the order of the images.
        resamples: R.

    Returns:
        [R, N]; each row sums to N.
    """
    seed = int.from_bytes(hashlib.sha256(content).digest()[:16], "little")
    drawn = np.random.default_rng(seed).integers(0, images, (resamples, images))
    # One bincount for all rows: the images of row i are numbered from i * N.
    drawn += np.arange(resamples)[:, None] * images
    return np.bincount(drawn.ravel(), minlength=resamples * images).reshape(resamples, images).astype(np.int64)


def percentile_interval(values: NDArray[np.float64], figure: float) -> tuple[float, float] | None:
    """The 2.5th and the 97.5th percentile of the resampled values (Efron 1979, https://doi.org/10.1214/aos/1176344552).

    The interval is widened where it would not contain the figure itself.

    Args:
        values: one per resample; NaN where it is undefined.
        figure: the value on the original images.

    Returns:
        The ends; None where fewer than half of the values are defined.
    """
    defined = values[~np.isnan(values)]
    if len(defined) < len(values) / 2 or not len(defined):
        return None
    low, high = np.percentile(defined, (2.5, 97.5))
    return min(float(low), figure), max(float(high), figure)
