"""Maximum mean discrepancy: the distance of two distributions, estimated from samples. Gretton et al. 2012, lemma 6."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stillroom.types import at_least_float32

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Rows [..., n, D] and [..., m, D] -> similarity of each pair of rows, [..., n, m]."""


def linear(x: Tensor, y: Tensor) -> Tensor:
    """Inner product x . y. The discrepancy is then the squared distance of the two means."""
    return x @ y.mT


def polynomial(degree: int = 2, constant: float = 0.0) -> Kernel:
    """(x . y + constant)^degree: compares moments of order `degree`; with a constant above 0 also all lower ones."""
    return lambda x, y: (x @ y.mT + constant) ** degree


def rbf(sigma: float | Tensor) -> Kernel:
    """exp(-||x - y||^2 / (2 sigma^2)): compares all moments, most sensitive at distances near sigma.

    See `median_distance`.
    """
    return lambda x, y: (-_distances(x, y).square() / (2 * sigma**2)).exp()


def median_distance(x: Tensor, y: Tensor) -> Tensor:
    """Median distance of two different rows among all rows of x [n, D] and y [m, D]; the usual sigma of `rbf`."""
    both = torch.cat([at_least_float32(x), at_least_float32(y)]).detach()
    first, second = torch.triu_indices(len(both), len(both), 1, device=both.device)
    return _distances(both, both)[first, second].median()


def mmd(x: Tensor, y: Tensor, kernel: Kernel, *, biased: bool = False) -> Tensor:
    """MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y).

    Args:
        x: sample of one distribution, rows [..., n, D].
        y: sample of the other, rows [..., m, D].
        kernel: `linear`, `polynomial(...)` or `rbf(...)`.
        biased: include k(x_i, x_i) and k(y_j, y_j). The result is then at least 0, and 0 for equal samples, but its
            mean is above 0 for two samples of one distribution. Otherwise the estimate is unbiased, and n and m must be
            at least 2.

    Returns:
        [...]; near 0 when the distributions agree in everything that the kernel compares. The unbiased estimate may be
        negative.
    """
    x, y = at_least_float32(x), at_least_float32(y)
    with torch.autocast(x.device.type, enabled=False):  # half precision is too coarse for a difference of means
        return discrepancy(kernel(x, x), kernel(y, y), kernel(x, y), biased=biased)


def discrepancy(xx: Tensor, yy: Tensor, xy: Tensor, *, biased: bool = False) -> Tensor:
    """`mmd` from kernel matrices [..., n, n], [..., m, m] and [..., n, m], so that a permutation test can shuffle them.

    Raises:
        ValueError: unbiased, and a sample has fewer than 2 rows.
    """
    if not biased and min(xy.shape[-2:]) < 2:
        raise ValueError(f"an unbiased discrepancy needs at least 2 rows on each side, got {list(xy.shape[-2:])}")
    within = _mean_within(xx, biased) + _mean_within(yy, biased)
    return within - 2 * xy.mean((-2, -1))


def _mean_within(k: Tensor, biased: bool) -> Tensor:
    if biased:
        return k.mean((-2, -1))
    n = k.shape[-1]
    return (k.sum((-2, -1)) - k.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """From differences: inner products would lose small distances between long vectors to rounding."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
