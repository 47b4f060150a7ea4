"""Ratios of sums over images, one per class, their mean, and the bootstrap intervals of both."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stillroom.metrics._bootstrap import RESAMPLES, percentile_interval, resample_counts

BOOTSTRAP = f"95 % interval from {RESAMPLES} resamples of the images"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ratios:
    """For N images and K classes: r_k = sum_n part_nk / sum_n whole_nk, and their mean m over the classes that occur.

    A class occurs if its sum of wholes is above 0. A resample weights the images of the sums, so that all resamples are
    one matrix product; a class that does not occur in a resample is left out of its mean.

    Attributes:
        parts: numerators [N, K].
        wholes: denominators [N, K], at least 0.
        value: m; NaN where no class occurs.
        by_class: r, [K]; NaN for a class that does not occur.
    """

    parts: Floats
    wholes: Floats
    value: float = field(init=False)
    by_class: Floats = field(init=False)

    def __post_init__(self) -> None:
        # Floating-point sums and the draws depend on the order of the images; the result must not, so rows are sorted.
        rows = np.concatenate((self.parts, self.wholes), 1)
        rows = rows[sorted(range(len(rows)), key=lambda n: rows[n].tobytes())]
        parts, wholes = np.split(rows, 2, 1)
        by_class = _quotient(parts.sum(0), wholes.sum(0))
        for name, found in (("parts", parts), ("wholes", wholes), ("by_class", by_class), ("value", _mean(by_class))):
            object.__setattr__(self, name, found if name != "value" else float(found))

    def intervals(self) -> tuple[tuple[float, float] | None, list[tuple[float, float] | None]]:
        """The 95 % intervals of `value` and of each class; None with fewer than two images."""
        images, classes = self.parts.shape
        if images < 2 or np.isnan(self.value):
            return None, [None] * classes
        weights = resample_counts(images, self.parts.tobytes() + self.wholes.tobytes()).astype(np.float64)
        resampled = _quotient(weights @ self.parts, weights @ self.wholes)
        each = [
            None if np.isnan(figure) else percentile_interval(resampled[:, k], float(figure))
            for k, figure in enumerate(self.by_class)
        ]
        return percentile_interval(_mean(resampled), self.value), each


def ratios(parts: ArrayLike, wholes: ArrayLike) -> Ratios:
    """`Ratios` from array-likes [N, K] or [N]."""
    p, w = (np.asarray(x, dtype=np.float64).reshape(len(np.asarray(x)), -1) for x in (parts, wholes))
    return Ratios(p, w)


def weighted_mean(parts: Floats, wholes: Floats, weights: NDArray[np.int64]) -> Floats:
    """The mean m of each resample, [R], of parts and wholes [N, K], when image n occurs weights[r, n] times."""
    many = weights.astype(np.float64)
    return _mean(_quotient(many @ parts, many @ wholes))


def _quotient(parts: Floats, wholes: Floats) -> Floats:
    return np.where(wholes > 0, parts / np.where(wholes > 0, wholes, 1), np.nan)


def _mean(values: Floats) -> Floats:
    """Over the last axis, without NaN; NaN where all are."""
    count = (~np.isnan(values)).sum(-1)
    return np.where(count > 0, np.nansum(values, -1) / np.maximum(count, 1), np.nan)
