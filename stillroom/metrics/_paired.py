"""The difference of two networks' figures over the same images: interval and p-value of a paired test.

Two intervals that overlap say little here. Both networks saw the same images, so most of what moves one figure moves
the other with it; what is left is where the networks differ.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr
from torch import Tensor

from stillroom.metrics._bootstrap import RESAMPLES, percentile_interval, resample_counts
from stillroom.metrics.measurement import Z95, Measurement

Floats = NDArray[np.float64]


def mcnemar(ours: Tensor, theirs: Tensor) -> Measurement:
    """The difference of two shares of N images, |ours| / N - |theirs| / N, by the images that one of them alone has.

        p = 2 P(X <= min(b, c)),  X ~ Binomial(b + c, 1/2), at most 1

    with b images only in ours and c only in theirs: the exact form of McNemar 1947,
    https://doi.org/10.1007/BF02295996. The interval is the adjusted Wald interval of Bonett and Price 2012,
    https://doi.org/10.3102/1076998611411915:

        d = (b - c) / (N + 2),  d -+ z sqrt(((b + c + 2) / (N + 2) - d^2) / (N + 2))

    Args:
        ours: [N] bool, N at least 1.
        theirs: [N] bool, of the same images.

    Returns:
        the difference in -1..1; `p`, `better` (b) and `worse` (c) are in `extra`.
    """
    n, b, c = len(ours), int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p = min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0
    middle = (b - c) / (n + 2)
    half = Z95 * sqrt(((b + c + 2) / (n + 2) - middle**2) / (n + 2))
    value = (b - c) / n
    ends = min(max(middle - half, -1.0), value), max(min(middle + half, 1.0), value)
    return Measurement(
        value=value,
        ci95=ends,
        n=n,
        how="difference to the baseline on the same images; exact McNemar test, adjusted Wald interval",
        extra={"p": p, "better": b, "worse": c, "test": "exact McNemar test"},
    )


def paired_bootstrap(
    ours: Callable[[NDArray[np.int64]], Floats], theirs: Callable[[NDArray[np.int64]], Floats], keys: NDArray[np.int64]
) -> Measurement | None:
    """The difference of two figures, resampled with the same images for both (Efron and Tibshirani 1993, section 16).

        p = 2 min(P(d* <= 0), P(d* >= 0)),  at least 1 / R and at most 1

    Args:
        ours: [R, N] how often each image occurs in each resample -> [R] figures.
        theirs: likewise; images in the same order.
        keys: [N] of the images; they seed the draws.

    Returns:
        the difference, with `p` in `extra`; None with fewer than two images or where a figure is undefined.
    """
    if len(keys) < 2:
        return None
    whole = np.ones((1, len(keys)), np.int64)
    value = float(ours(whole)[0] - theirs(whole)[0])
    weights = resample_counts(len(keys), keys.tobytes())
    differences = ours(weights) - theirs(weights)
    ends = percentile_interval(differences, value)
    if np.isnan(value) or ends is None:
        return None
    defined = differences[~np.isnan(differences)]
    tail = min(float((defined <= 0).mean()), float((defined >= 0).mean()))
    return Measurement(
        value=value,
        ci95=ends,
        n=len(keys),
        how=f"difference to the baseline on the same images; paired bootstrap, {RESAMPLES} resamples",
        extra={"p": min(1.0, max(2 * tail, 1 / RESAMPLES)), "test": "paired bootstrap"},
    )
