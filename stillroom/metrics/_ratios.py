"""Ratios of sums over images, one a class, their mean, and how far both would move with other images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stillroom.metrics._bootstrap import RESAMPLES, interval, resamples

BOOTSTRAP = f"95 % interval from {RESAMPLES} resamples of the images"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ratios:
    """Of N images and K classes: r_k = sum_n part_nk / sum_n whole_nk, and m = mean of r_k over classes with a whole.

    A resample of the images weights the sums, so that 1000 of them are one product of matrices. A class that a resample
    has nothing of is left out of its mean, as it is left out of the figure's.

    Attributes:
        parts: [N, K].
        wholes: [N, K], at least 0.
        value: m; NaN where no class has a whole.
        by_class: r, [K]; NaN where there is no whole.
    """

    parts: Floats
    wholes: Floats
    value: float = field(init=False)
    by_class: Floats = field(init=False)

    def __post_init__(self) -> None:
        # Floating sums and draws depend on the order of the images; what is said of them must not.
        rows = np.concatenate((self.parts, self.wholes), 1)
        rows = rows[sorted(range(len(rows)), key=lambda n: rows[n].tobytes())]
        parts, wholes = np.split(rows, 2, 1)
        by_class = _over(parts.sum(0), wholes.sum(0))
        for name, found in (("parts", parts), ("wholes", wholes), ("by_class", by_class), ("value", _mean(by_class))):
            object.__setattr__(self, name, found if name != "value" else float(found))

    def intervals(self) -> tuple[tuple[float, float] | None, list[tuple[float, float] | None]]:
        """The 95 % intervals of `value` and of each class; None where there are fewer than two images."""
        images, classes = self.parts.shape
        if images < 2 or np.isnan(self.value):
            return None, [None] * classes
        weights = resamples(images, self.parts.tobytes() + self.wholes.tobytes()).astype(np.float64)
        drawn = _over(weights @ self.parts, weights @ self.wholes)
        each = [
            None if np.isnan(figure) else interval(drawn[:, k], float(figure)) for k, figure in enumerate(self.by_class)
        ]
        return interval(_mean(drawn), self.value), each


def ratios(parts: ArrayLike, wholes: ArrayLike) -> Ratios:
    """`Ratios` of anything that can be an array, [N, K] or [N]."""
    p, w = (np.asarray(x, dtype=np.float64).reshape(len(np.asarray(x)), -1) for x in (parts, wholes))
    return Ratios(p, w)


def _over(parts: Floats, wholes: Floats) -> Floats:
    return np.where(wholes > 0, parts / np.where(wholes > 0, wholes, 1), np.nan)


def _mean(values: Floats) -> Floats:
    """Over the last axis, of what is there; NaN where nothing is."""
    count = (~np.isnan(values)).sum(-1)
    return np.where(count > 0, np.nansum(values, -1) / np.maximum(count, 1), np.nan)
