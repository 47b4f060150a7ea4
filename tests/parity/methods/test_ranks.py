"""Soft ranks against the definition, and the numbers that the reference implementation prints."""

from __future__ import annotations

from itertools import accumulate, permutations

import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from stillroom.methods._ranks import pearson, soft_rank, spearman


def row(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


def test_the_reference_s_examples():
    """Torchsort's ranks, and its correlation 0.8321 at reg = 1."""
    ranks = soft_rank(row(8, 0, 5, 3, 2, 1, 6, 7, 9), 1.0)
    assert ranks.tolist() == [[8, 1, 5, 4, 3, 2, 6, 7, 9]]
    assert spearman(row(1, 2, 3, 4, 5), row(5, 6, 7, 8, 7), 1.0).item() == pytest.approx(0.8321, abs=5e-5)


def test_the_exact_value_shares_ranks_between_ties():
    """0.82078, as scipy has it; soft ranks come near it as reg falls."""
    x, y = row(1, 2, 3, 4, 5), row(5, 6, 7, 8, 7)
    exact = spearmanr(x[0].numpy(), y[0].numpy()).statistic
    assert exact == pytest.approx(0.82078, abs=5e-6)
    assert spearman(x, y, 0).item() == pytest.approx(exact, abs=1e-12)
    assert abs(spearman(x, y, 1e-3).item() - exact) <= 1e-3


@pytest.mark.parametrize("reg", [0.05, 0.5, 5.0])
def test_it_is_the_nearest_mixture_of_permutations(reg):
    """r is nearest to x / reg in a convex set if it lies in it and <x / reg - r, v - r> <= 0 for every corner v.

    In the set: for every m the m largest sum to at most n + (n - 1) + ..., and all to exactly that (Rado 1952).
    """
    torch.manual_seed(0)
    for x in torch.randn(20, 5, dtype=torch.float64):
        r = soft_rank(x[None], reg)[0]
        sums, most = list(accumulate(sorted(r.tolist(), reverse=True))), list(accumulate(range(5, 0, -1)))
        assert all(a <= b + 1e-9 for a, b in zip(sums, most, strict=True)) and sums[-1] == pytest.approx(most[-1])
        for corner in permutations(range(1, 6)):
            v = torch.tensor(corner, dtype=torch.float64)
            assert ((x / reg - r) * (v - r)).sum() <= 1e-8


@pytest.mark.parametrize("reg", [0.05, 0.5, 5.0])
def test_the_gradient_is_the_formula_s(reg):
    """Within a group (g - mean g) / reg, the groups read off a naive pool of adjacent violators."""
    torch.manual_seed(1)
    x, g = torch.randn(9, dtype=torch.float64, requires_grad=True), torch.randn(9, dtype=torch.float64)
    soft_rank(x[None], reg)[0].backward(g)
    order = sorted(range(9), key=lambda i: -x[i].item())
    groups: list[list[int]] = []
    for place, i in enumerate(order):
        groups.append([place])

        def level(group):
            return sum(x[order[p]].item() / reg - (9 - p) for p in group) / len(group)

        while len(groups) > 1 and level(groups[-2]) <= level(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
        assert i == order[place]
    for group in groups:
        mean = sum(g[order[p]].item() for p in group) / len(group)
        for p in group:
            assert x.grad[order[p]].item() == pytest.approx((g[order[p]].item() - mean) / reg, abs=1e-9)


def test_rows_are_independent():
    torch.manual_seed(2)
    x = torch.randn(7, 11, dtype=torch.float64) * torch.logspace(-3, 3, 7, dtype=torch.float64)[:, None]
    alone = torch.cat([soft_rank(one[None], 0.3) for one in x])
    assert torch.allclose(soft_rank(x, 0.3), alone, atol=1e-12)


def test_pearson_is_scipy_s():
    torch.manual_seed(3)
    x, y = torch.randn(6, 8).double(), torch.randn(6, 8).double()
    expected = [pearsonr(a, b).statistic for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    assert pearson(x, y).tolist() == pytest.approx(expected, abs=1e-12)
