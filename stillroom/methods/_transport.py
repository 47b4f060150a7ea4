"""Entropic optimal transport between distributions over classes, where moving mass between two classes has a cost.

Sinkhorn's iterations (Cuturi 2013, https://arxiv.org/abs/1306.0895), in the log domain. Distributions are rows of
log-probabilities [M, K], -inf for classes without mass; all rows share one cost matrix [K, K].
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_MASS = 1e-12  # avoids 0 / 0 where no mass is missing


def scalings(a: Tensor, b: Tensor, cost: Tensor, *, reg: float, iterations: int) -> tuple[Tensor, Tensor]:
    """u, v [M, K] of the plan exp(u_i + v_j - cost_ij / reg) from exp(a) to exp(b).

    The plan minimises <plan, cost> - reg entropy(plan). Each iteration scales the rows to sum to exp(a), then the
    columns to sum to exp(b), so the remaining error is in the rows. Accurate while max(cost) / reg is at most 80 in
    float32 or 700 in float64, because exp(-cost / reg) must not underflow.

    Args:
        a: log-probabilities [M, K] of the source.
        b: log-probabilities [M, K] of the destination.
        cost: [K, K], at least 0: the cost of moving a unit of mass from i to j.
        reg: above 0, in units of cost; a smaller value is closer to the optimal plan, and needs more iterations.
        iterations: at least 1.
    """
    kernel = (-cost / reg).exp()
    u, v = a, b
    for _ in range(iterations):
        u = a - _log_product(v, kernel)
        v = b - _log_product(u, kernel.T)
    return u, v


def transport_cost(a: Tensor, b: Tensor, cost: Tensor, *, reg: float, iterations: int) -> Tensor:
    """sum_ij plan_ij cost_ij of the plan of `scalings`, corrected to have the right marginals: [M], in units of cost.

    Rows with too much mass are scaled down, and the mass that is then missing is distributed in proportion to where it
    is missing (Altschuler et al. 2017, https://arxiv.org/abs/1705.09634, algorithm 2). So the result is never below the
    optimal cost, for any number of iterations; a plan with wrong marginals can be below it. It is above 0 even for a =
    b, because of the entropy; `divergence` subtracts that.
    """
    u, v = scalings(a, b, cost, reg=reg, iterations=iterations)
    kernel = (-cost / reg).exp()
    reached = _log_product(v, kernel)
    u = torch.minimum(u, a - reached)
    missing_rows = (a.exp() - (u + reached).exp()).relu()
    missing_columns = (b.exp() - (v + _log_product(u, kernel.T)).exp()).relu()
    rest = (missing_rows @ cost * missing_columns).sum(1) / missing_rows.sum(1).clamp_min(MIN_MASS)
    top = u.amax(1, keepdim=True).detach()
    return ((u - top).exp() @ (kernel * cost) * (v + top).exp()).sum(1) + rest


def divergence(a: Tensor, b: Tensor, cost: Tensor, *, reg: float, iterations: int) -> Tensor:
    """W(a, b) - W(a, a) / 2 - W(b, b) / 2, with W = `transport_cost`, [M]; exactly 0 for a = b.

    Genevay et al. 2018, https://arxiv.org/abs/1706.00292, eq. 4.
    """
    ab, aa, bb = (transport_cost(x, y, cost, reg=reg, iterations=iterations) for x, y in ((a, b), (a, a), (b, b)))
    return ab - (aa + bb) / 2


def plan(u: Tensor, v: Tensor, cost: Tensor, *, reg: float) -> Tensor:
    """exp(u_i + v_j - cost_ij / reg), [M, K, K]: the mass that is moved from i to j."""
    return (u[:, :, None] + v[:, None, :] - cost / reg).exp()


def marginal_error(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """max(sum_i |row sums of plan - exp(a)|, sum_j |column sums of plan - exp(b)|): [M].

    Above 0.01 there were too few iterations: the cost of such a plan can be below the optimal one.
    """
    rows, columns = (plan.sum(2) - a.exp()).abs().sum(1), (plan.sum(1) - b.exp()).abs().sum(1)
    return torch.maximum(rows, columns)


def ordinal_distance(p: Tensor, q: Tensor) -> Tensor:
    """sum_k |P(k) - Q(k)| of the cumulative distributions, [M, K], [M, K] -> [M]: W1 for ordered classes.

    Neighbouring classes have distance 1, like grades; the unit is classes. Exact, without iterations.

    Args:
        p: probabilities [M, K].
        q: probabilities [M, K].
    """
    return (p - q).cumsum(1).abs().sum(1)


def _log_product(h: Tensor, kernel: Tensor) -> Tensor:
    """Logarithm of sum_j kernel_ij exp(h_j), [M, K] -> [M, K], without an intermediate [M, K, K]."""
    top = h.amax(1, keepdim=True).detach()
    return ((h - top).exp() @ kernel.T).log() + top
