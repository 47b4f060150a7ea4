"""Ranks with a gradient, and what is made of them: Spearman's correlation of rows.

Blondel et al. 2020, https://arxiv.org/abs/2002.08871: the soft ranks of x are the point nearest to x / reg of all
mixtures of the permutations of 1..n. Isotonic regression finds it in n log n.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from stillroom.methods._temperature import agreement

FLOOR = 1e-8  # of a product of lengths: rows without spread correlate with nothing


def soft_rank(x: Tensor, reg: float) -> Tensor:
    """The r that minimises |r - x / reg|^2 over mixtures of permutations of 1..n, for every row: [M, n] -> [M, n].

    Numbers more than `reg` apart from their neighbours get their whole ranks, 1 for the least, and no gradient; closer
    ones form groups that share their ranks linearly, equal ones equally. The gradient is exact: within a group,
    (g - mean(g)) / reg. A large reg makes one group of everything, and Spearman's correlation Pearson's.

    The groups are found by the processor, one row after the other (10 us a row on one core).

    Returns:
        Ranks between 1 and n; every row sums to n (n + 1) / 2.
    """
    z, order = (x / reg).sort(1, descending=True)
    ranks = torch.arange(x.shape[1], 0, -1, device=x.device, dtype=x.dtype).expand_as(z)
    groups = _groups(z - ranks)
    return torch.zeros_like(z).scatter(1, order, z - _group_means(z, groups) + _group_means(ranks, groups))


def spearman(a: Tensor, b: Tensor, reg: float) -> Tensor:
    """Pearson's correlation of the ranks of every row with those of its counterpart, [M, n], [M, n] -> [M] in -1..1.

    Args:
        a: one side.
        b: the other.
        reg: above 0 for soft ranks of that width; 0 for whole ones, equal numbers sharing their mean, no gradient.
    """
    return pearson(soft_rank(a, reg), soft_rank(b, reg)) if reg else agreement(a, b).squeeze(1)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """sum((a - mean a)(b - mean b)) / (|a - mean a| |b - mean b|) of every row, [M, n], [M, n] -> [M] in -1..1.

    Unchanged by a -> u a + v, u > 0. A row of equal numbers correlates with nothing: 0, and no gradient.
    """
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    lengths = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return (a * b).sum(1) / lengths.clamp_min(FLOOR)


def _groups(rows: Tensor) -> Tensor:
    """Which entries isotonic regression to a falling row averages: a number for each group, [M, n], none used twice."""
    found = np.zeros(rows.shape, dtype=np.int64)
    for group, row in zip(found, rows.detach().double().cpu().numpy(), strict=True):
        group[isotonic_regression(row, increasing=False).blocks[:-1]] = 1
    return torch.from_numpy(found.cumsum().reshape(rows.shape) - 1).to(rows.device)


def _group_means(rows: Tensor, groups: Tensor) -> Tensor:
    """Every entry replaced by its group's mean."""
    flat, values = groups.flatten(), rows.flatten()
    sums = torch.zeros_like(values).index_add(0, flat, values)
    sizes = torch.zeros_like(values).index_add(0, flat, torch.ones_like(values))
    return (sums / sizes.clamp_min(1))[groups]
