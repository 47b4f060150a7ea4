"""Differentiable ranks, and Pearson's and Spearman's correlation of rows.

Blondel et al. 2020, https://arxiv.org/abs/2002.08871: the soft ranks of x are the projection of x / reg onto the convex
hull of the permutations of 1..n. Isotonic regression computes it in O(n log n).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from stillroom.methods._temperature import rank_correlation

FLOOR = 1e-8  # of the product of two norms: avoids 0 / 0 for rows of equal numbers


def soft_rank(x: Tensor, reg: float) -> Tensor:
    """The r that minimises |r - x / reg|^2 over the convex hull of the permutations of 1..n, by row: [M, n] -> [M, n].

    Numbers that differ from their neighbours by more than `reg` get integer ranks, 1 for the smallest, and no gradient;
    closer ones form groups in which the ranks are linear in x, and equal for equal numbers. The gradient is exact: (g -
    mean(g)) / reg within a group. With a large reg all numbers form one group, and Spearman's correlation becomes
    Pearson's.

    The groups are computed on the CPU, row by row (10 us a row on one core).

    Returns:
        Ranks in 1..n; each row sums to n (n + 1) / 2.
    """
    z, order = (x / reg).sort(1, descending=True)
    ranks = torch.arange(x.shape[1], 0, -1, device=x.device, dtype=x.dtype).expand_as(z)
    groups = _groups(z - ranks)
    return torch.zeros_like(z).scatter(1, order, z - _group_means(z, groups) + _group_means(ranks, groups))


def spearman(a: Tensor, b: Tensor, reg: float) -> Tensor:
    """Pearson's correlation of the ranks of two rows, [M, n], [M, n] -> [M] in -1..1.

    Args:
        a: rows of one side.
        b: rows of the other.
        reg: above 0 for soft ranks, see `soft_rank`; 0 for integer ranks, where equal numbers share their mean rank and
            there is no gradient.
    """
    return pearson(soft_rank(a, reg), soft_rank(b, reg)) if reg else rank_correlation(a, b).squeeze(1)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """sum((a - mean a)(b - mean b)) / (|a - mean a| |b - mean b|) of two rows, [M, n], [M, n] -> [M] in -1..1.

    Unchanged by a -> u a + v, u > 0. For a row of equal numbers it is 0, without a gradient.
    """
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    lengths = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return (a * b).sum(1) / lengths.clamp_min(FLOOR)


def _groups(rows: Tensor) -> Tensor:
    """Which entries isotonic regression to a descending row averages: group numbers [M, n], unique over all rows."""
    found = np.zeros(rows.shape, dtype=np.int64)
    for group, row in zip(found, rows.detach().double().cpu().numpy(), strict=True):
        group[isotonic_regression(row, increasing=False).blocks[:-1]] = 1
    return torch.from_numpy(found.cumsum().reshape(rows.shape) - 1).to(rows.device)


def _group_means(rows: Tensor, groups: Tensor) -> Tensor:
    """Each entry replaced by the mean of its group."""
    flat, values = groups.flatten(), rows.flatten()
    sums = torch.zeros_like(values).index_add(0, flat, values)
    sizes = torch.zeros_like(values).index_add(0, flat, torch.ones_like(values))
    return (sums / sizes.clamp_min(1))[groups]
