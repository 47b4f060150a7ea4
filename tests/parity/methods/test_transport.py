"""Transport against linear programming, loops and scipy (techniques.md 4; 0.1, no. 8)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance

from stillroom.methods._transport import (
    divergence,
    marginal_error,
    ordinal_distance,
    plan,
    scalings,
    transport_cost,
)

DRAWS = 20


def cheapest(a, b, cost):
    """The linear program: the least <P, cost> of all P >= 0 with rows a and columns b."""
    n = len(a)
    sums = np.zeros((2 * n, n * n))
    for i in range(n):
        sums[i, i * n : (i + 1) * n] = sums[n + i, i::n] = 1
    return linprog(cost.flatten(), A_eq=sums, b_eq=np.concatenate([a, b]), bounds=(0, None)).fun


def drawn(seed):
    """Two distributions over 10 classes and prices as WKD-L has them, 1 - exp(-d), d in 0.3..1: at most 0.632."""
    generator = torch.Generator().manual_seed(seed)
    a, b = ((2 * torch.randn(1, 10, generator=generator).double()).log_softmax(1) for _ in range(2))
    d = torch.rand(10, 10, generator=generator).double()
    return a, b, (1 - torch.exp(-(0.3 + 0.7 * (d + d.T) / 2))).fill_diagonal_(0)


def naive(a, b, cost, reg, iterations, inside=1e-8):
    """Sinkhorn's iterations outside logarithms, 1e-8 in the denominators, as the authors' code has them."""
    kernel = [[math.exp(-c / reg) for c in row] for row in cost]
    n = len(a)
    u = [1 / n] * n
    for _ in range(iterations):
        v = [b[j] / (sum(kernel[i][j] * u[i] for i in range(n)) + inside) for j in range(n)]
        u = [a[i] / (sum(kernel[i][j] * v[j] for j in range(n)) + inside) for i in range(n)]
    return torch.tensor([[[u[i] * kernel[i][j] * v[j] for j in range(n)] for i in range(n)]], dtype=torch.float64)


def against_the_cheapest(reg, iterations):
    """Cost over the linear program's, cost less it, and what the plan misses, of every draw."""
    found = []
    for seed in range(DRAWS):
        a, b, cost = drawn(seed)
        least = cheapest(a[0].exp().numpy(), b[0].exp().numpy(), cost.numpy())
        charged = transport_cost(a, b, cost, reg=reg, iterations=iterations).item()
        fits = plan(*scalings(a, b, cost, reg=reg, iterations=iterations), cost, reg=reg)
        columns = (fits.sum(1) - b.exp()).abs().max().item()
        found.append((charged / least, charged - least, columns))
    return np.array(found).T


@pytest.mark.parametrize(("reg", "iterations", "most"), [(0.05, 200, 1.05), (0.01, 2000, 1.002)])
def test_against_linear_programming(reg, iterations, most):
    """techniques.md 4: at most 1.05 of the cheapest plan's cost at 0.05, 1.002 at 0.01; columns right to 1e-8."""
    ratio, excess, columns = against_the_cheapest(reg, iterations)
    assert 1 <= ratio.min() and ratio.max() <= most
    assert excess.min() >= -1e-4 and columns.max() <= 1e-8


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_never_below_the_cheapest_plan_however_few_the_iterations(iterations):
    """techniques.md 4: cost >= LP - 1e-4, always."""
    for reg in (0.05, 0.02):
        assert against_the_cheapest(reg, iterations)[1].min() >= -1e-9


def test_the_naive_form_is_caught():
    """techniques.md 4 and 0.1, no. 8: at 0.02 its plan costs less than is possible, and `marginal_error` says so."""
    below = 0
    for seed in range(DRAWS):
        a, b, cost = drawn(seed)
        p, q = a[0].exp().tolist(), b[0].exp().tolist()
        broken = naive(p, q, cost.tolist(), 0.02, 10)
        least = cheapest(np.array(p), np.array(q), cost.numpy())
        below += (broken * cost).sum().item() < least - 1e-4
        if (broken * cost).sum().item() < 0.98 * least:
            assert marginal_error(broken, a, b) > 1e-2
        assert marginal_error(plan(*scalings(a, b, cost, reg=0.02, iterations=2000), cost, reg=0.02), a, b) <= 1e-2
    assert below >= DRAWS / 2


def test_against_loops():
    """Where the iterations have converged, and without their 1e-8, the naive form is the same plan."""
    for seed in range(3):
        a, b, cost = drawn(seed)
        expected = naive(a[0].exp().tolist(), b[0].exp().tolist(), cost.tolist(), 0.1, 300, inside=0.0)
        found = plan(*scalings(a, b, cost, reg=0.1, iterations=300), cost, reg=0.1)
        assert torch.allclose(found, expected, rtol=1e-8, atol=1e-14)
        charged = transport_cost(a, b, cost, reg=0.1, iterations=300)
        assert charged.item() == pytest.approx((expected * cost).sum().item(), rel=1e-9)


def test_debiased_is_nothing_at_equality():
    """techniques.md 4: S(p, p) = 0, and the raw cost of p to p is not; apart, S is the three costs' combination."""
    a, b, cost = drawn(0)
    at = {"reg": 0.05, "iterations": 200}
    assert divergence(a, a, cost, **at).item() == 0 and transport_cost(a, a, cost, **at).item() > 1e-4
    parts = [transport_cost(x, y, cost, **at).item() for x, y in ((a, b), (a, a), (b, b))]
    assert divergence(a, b, cost, **at).item() == pytest.approx(parts[0] - parts[1] / 2 - parts[2] / 2, rel=1e-12)


def test_ordinal_distance_is_scipy_s():
    """techniques.md 4: to 1e-9."""
    torch.manual_seed(0)
    p, q = (torch.randn(50, 5).double().softmax(1) for _ in range(2))
    grades = np.arange(5)
    expected = [wasserstein_distance(grades, grades, a, b) for a, b in zip(p.numpy(), q.numpy(), strict=True)]
    assert np.abs(ordinal_distance(p, q).numpy() - expected).max() <= 1e-9
