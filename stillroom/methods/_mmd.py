"""Maximum mean discrepancy: how far apart two distributions are, told from samples. Gretton et al. 2012, lemma 6."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stillroom.types import at_least_float32

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Rows [..., n, D] and [..., m, D] -> how alike each is to each, [..., n, m]."""


def linear(x: Tensor, y: Tensor) -> Tensor:
    """(x . y), by which the discrepancy is the squared distance of the two means, and sees nothing else."""
    return x @ y.mT


def polynomial(degree: int = 2, constant: float = 0.0) -> Kernel:
    """(x . y + constant)^degree: sees moments of that order, of all up to it where the constant is above 0."""
    return lambda x, y: (x @ y.mT + constant) ** degree


def rbf(sigma: float | Tensor) -> Kernel:
    """exp(-||x - y||^2 / (2 sigma^2)): sees all, best what is of the size of sigma. See `median_distance`."""
    return lambda x, y: (-_distances(x, y).square() / (2 * sigma**2)).exp()


def median_distance(x: Tensor, y: Tensor) -> Tensor:
    """The median distance of two different rows of x [n, D] and y [m, D] together, the usual sigma of `rbf`."""
    both = torch.cat([at_least_float32(x), at_least_float32(y)]).detach()
    first, second = torch.triu_indices(len(both), len(both), 1, device=both.device)
    return _distances(both, both)[first, second].median()


def mmd(x: Tensor, y: Tensor, kernel: Kernel, *, biased: bool = False) -> Tensor:
    """MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y), the squared discrepancy.

    Args:
        x: sample of one distribution, rows [..., n, D].
        y: sample of the other, rows [..., m, D].
        kernel: how alike two rows are; `linear`, `polynomial(...)` or `rbf(...)`.
        biased: rows are compared with themselves too. The result is then never negative, and 0 for equal samples, but
            above 0 on average for two samples of one distribution. Without, the average is right: n and m at least 2.

    Returns:
        [...]; about 0 when the distributions agree in all that the kernel sees. Unbiased, it may be negative.
    """
    x, y = at_least_float32(x), at_least_float32(y)
    with torch.autocast(x.device.type, enabled=False):  # a difference of means: half precision would leave noise
        return discrepancy(kernel(x, x), kernel(y, y), kernel(x, y), biased=biased)


def discrepancy(xx: Tensor, yy: Tensor, xy: Tensor, *, biased: bool = False) -> Tensor:
    """`mmd` from the kernel's values [..., n, n], [..., m, m] and [..., n, m]: what a permutation test shuffles.

    Raises:
        ValueError: an unbiased one was asked of a sample of one row.
    """
    if not biased and min(xy.shape[-2:]) < 2:
        raise ValueError(f"an unbiased discrepancy needs 2 rows on each side, got {list(xy.shape[-2:])}")
    within = _mean_within(xx, biased) + _mean_within(yy, biased)
    return within - 2 * xy.mean((-2, -1))


def _mean_within(k: Tensor, biased: bool) -> Tensor:
    if biased:
        return k.mean((-2, -1))
    n = k.shape[-1]
    return (k.sum((-2, -1)) - k.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Taken from differences: from products they would lose what is small beside the rows' length."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
