"""What it costs to turn one distribution over classes into another, where moving mass between classes has a price.

Entropic optimal transport by Sinkhorn's iterations (Cuturi 2013, https://arxiv.org/abs/1306.0895), in logarithms.
Distributions come as rows of log-probabilities [M, K], -inf where there is no mass; all share one price list [K, K].
"""

from __future__ import annotations

import torch
from torch import Tensor

NOTHING = 1e-12  # of a mass: less than this needs no moving


def scalings(a: Tensor, b: Tensor, cost: Tensor, *, reg: float, iterations: int) -> tuple[Tensor, Tensor]:
    """u, v [M, K] of the plan exp(u_i + v_j - cost_ij / reg) that takes exp(a) to exp(b).

    It is the plan of the least <plan, cost> - reg entropy(plan). Every iteration makes the rows sum to exp(a), then
    the columns to exp(b): what is left undone is in the rows. Precise while max(cost) / reg is at most 80 in
    float32, 700 in float64, because exp(-cost / reg) has to be a number above 0.

    Args:
        a: log-probabilities [M, K] of the mass to move.
        b: log-probabilities [M, K] of where it shall lie.
        cost: [K, K], at least 0: the price of moving a unit from i to j.
        reg: above 0, in units of cost; smaller is nearer to the cheapest plan, and takes more iterations.
        iterations: at least 1.
    """
    kernel = (-cost / reg).exp()
    u, v = a, b
    for _ in range(iterations):
        u = a - _log_product(v, kernel)
        v = b - _log_product(u, kernel.T)
    return u, v


def transport_cost(a: Tensor, b: Tensor, cost: Tensor, *, reg: float, iterations: int) -> Tensor:
    """sum_ij plan_ij cost_ij of the plan of `scalings`, made to fit exp(a) and exp(b): [M], in units of cost.

    Rows that are too heavy are scaled down, and the mass then missing is moved in proportion to where it is missing
    (Altschuler et al. 2017, https://arxiv.org/abs/1705.09634, algorithm 2). So the result is never below the price of
    the cheapest plan, however few the iterations; a plan with the wrong marginals can be. It is above 0 even for
    a = b, because entropy smears; `divergence` takes that off.
    """
    u, v = scalings(a, b, cost, reg=reg, iterations=iterations)
    kernel = (-cost / reg).exp()
    reached = _log_product(v, kernel)
    u = torch.minimum(u, a - reached)
    late = (a.exp() - (u + reached).exp()).relu()
    open_ = (b.exp() - (v + _log_product(u, kernel.T)).exp()).relu()
    rest = (late @ cost * open_).sum(1) / late.sum(1).clamp_min(NOTHING)
    top = u.amax(1, keepdim=True).detach()
    return ((u - top).exp() @ (kernel * cost) * (v + top).exp()).sum(1) + rest


def divergence(a: Tensor, b: Tensor, cost: Tensor, *, reg: float, iterations: int) -> Tensor:
    """W(a, b) - W(a, a) / 2 - W(b, b) / 2, W being `transport_cost`, [M]; exactly 0 for a = b.

    Genevay et al. 2018, https://arxiv.org/abs/1706.00292, eq. 4.
    """
    ab, aa, bb = (transport_cost(x, y, cost, reg=reg, iterations=iterations) for x, y in ((a, b), (a, a), (b, b)))
    return ab - (aa + bb) / 2


def plan(u: Tensor, v: Tensor, cost: Tensor, *, reg: float) -> Tensor:
    """exp(u_i + v_j - cost_ij / reg), [M, K, K]: how much goes from i to j."""
    return (u[:, :, None] + v[:, None, :] - cost / reg).exp()


def marginal_error(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The mass in the wrong place, the larger of sum_i |plan's rows - exp(a)| and the same of columns and b: [M].

    Above 0.01 the iterations were too few: such a plan can cost less than the cheapest one that does the work.
    """
    rows, columns = (plan.sum(2) - a.exp()).abs().sum(1), (plan.sum(1) - b.exp()).abs().sum(1)
    return torch.maximum(rows, columns)


def ordinal_distance(p: Tensor, q: Tensor) -> Tensor:
    """sum_k |P(k) - Q(k)| of the cumulative distributions, [M, K], [M, K] -> [M]: W1 of classes that have an order.

    Neighbouring classes are 1 apart, as grades are; the unit is classes moved. Exact, without iterations.

    Args:
        p: probabilities [M, K].
        q: probabilities [M, K].
    """
    return (p - q).cumsum(1).abs().sum(1)


def _log_product(h: Tensor, kernel: Tensor) -> Tensor:
    """The matrix product log sum_j kernel_ij exp(h_j), [M, K] -> [M, K], in logarithms and without [M, K, K]."""
    top = h.amax(1, keepdim=True).detach()
    return ((h - top).exp() @ kernel.T).log() + top
