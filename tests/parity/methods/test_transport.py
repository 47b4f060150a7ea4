"""Transport against linear programming, loops and scipy."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance

from stillroom.methods._transport import divergence, marginal_error, ordinal_distance, plan, scalings, transport_cost

DRAWS = 20


def cheapest(a, b, cost):
    """The linear program: the least <P, cost> of all P >= 0 with rows a and columns b."""
    n = len(a)
    sums = np.zeros((2 * n, n * n))
    for i in range(n):
        sums[i, i * n : (i + 1) * n] = sums[n + i, i::n] = 1
    return linprog(cost.flatten(), A_eq=sums, b_eq=np.concatenate([a, b]), bounds=(0, None)).fun


def drawn(seed):
    """Two distributions over 10 classes and prices as WKD-L has them, 1 - exp(-d), d in 0.4..1: at most 0.632."""
    generator = torch.Generator().manual_seed(seed)
    a, b = ((3 * torch.randn(1, 10, generator=generator).double()).log_softmax(1) for _ in range(2))
    d = torch.rand(10, 10, generator=generator).double()
    return a, b, (1 - torch.exp(-(0.4 + 0.6 * (d + d.T) / 2))).fill_diagonal_(0)


def naive(a, b, cost, reg, iterations, inside=1e-8):
    """Sinkhorn's iterations outside logarithms, 1e-8 in the denominators, as the authors' code has them."""
    kernel = [[math.exp(-c / reg) for c in row] for row in cost]
    n = len(a)
    u = [1 / n] * n
    for _ in range(iterations):
        v = [b[j] / (sum(kernel[i][j] * u[i] for i in range(n)) + inside) for j in range(n)]
        u = [a[i] / (sum(kernel[i][j] * v[j] for j in range(n)) + inside) for i in range(n)]
    return torch.tensor([[[u[i] * kernel[i][j] * v[j] for j in range(n)] for i in range(n)]], dtype=torch.float64)


@functools.cache
def draws():
    """Twenty tasks and what the cheapest plan of each costs."""
    tasks = [drawn(seed) for seed in range(DRAWS)]
    return [(*task, cheapest(*(x[0].exp().numpy() for x in task[:2]), task[2].numpy())) for task in tasks]


def against_the_cheapest(reg, iterations):
    """Cost over the linear program's, and cost less it, of every draw."""
    with torch.no_grad():
        found = [
            (transport_cost(a, b, cost, reg=reg, iterations=iterations).item(), least) for a, b, cost, least in draws()
        ]
    return np.array([(charged / least, charged - least) for charged, least in found]).T


@pytest.mark.parametrize(("reg", "iterations", "most"), [(0.05, 200, 1.05), (0.01, 2000, 1.002)])
def test_against_linear_programming(reg, iterations, most):
    """At most 1.05 of the cheapest plan's cost at 0.05, 1.002 at 0.01; never below it by 1e-4."""
    ratio, excess = against_the_cheapest(reg, iterations)
    assert ratio.min() >= 1 and ratio.max() <= most and excess.min() >= -1e-4


def test_the_plan_fits():
    """Columns right to 1e-8 at 0.05 and 200 iterations; here the rows too."""
    for a, b, cost, _ in draws():
        found = plan(*scalings(a, b, cost, reg=0.05, iterations=200), cost, reg=0.05)
        assert (found.sum(1) - b.exp()).abs().max() <= 1e-8 and marginal_error(found, a, b) <= 1e-5


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_never_below_the_cheapest_plan_however_few_the_iterations(iterations):
    """Cost >= LP - 1e-4, always."""
    for reg in (0.05, 0.02):
        assert against_the_cheapest(reg, iterations)[1].min() >= -1e-9


def test_the_naive_form_is_caught():
    """At 0.02 its plan costs less than is possible, and `marginal_error` says so."""
    below = 0
    for a, b, cost, least in draws():
        broken = naive(a[0].exp().tolist(), b[0].exp().tolist(), cost.tolist(), 0.02, 10)
        below += (broken * cost).sum().item() < least - 1e-4
        if (broken * cost).sum().item() < 0.98 * least:
            assert marginal_error(broken, a, b) > 1e-2
        assert marginal_error(plan(*scalings(a, b, cost, reg=0.02, iterations=500), cost, reg=0.02), a, b) <= 1e-2
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
    """S(p, p) = 0, and the raw cost of p to p is not; apart, S is the three costs' combination."""
    a, b, cost = drawn(0)
    at = {"reg": 0.05, "iterations": 200}
    assert divergence(a, a, cost, **at).item() == 0 and transport_cost(a, a, cost, **at).item() > 1e-4
    parts = [transport_cost(x, y, cost, **at).item() for x, y in ((a, b), (a, a), (b, b))]
    assert divergence(a, b, cost, **at).item() == pytest.approx(parts[0] - parts[1] / 2 - parts[2] / 2, rel=1e-12)


def test_ordinal_distance_is_scipy_s():
    """To 1e-9."""
    torch.manual_seed(0)
    p, q = (torch.randn(50, 5).double().softmax(1) for _ in range(2))
    grades = np.arange(5)
    expected = [wasserstein_distance(grades, grades, a, b) for a, b in zip(p.numpy(), q.numpy(), strict=True)]
    assert np.abs(ordinal_distance(p, q).numpy() - expected).max() <= 1e-9
