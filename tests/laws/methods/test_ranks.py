"""Properties of soft ranks and of the correlations made of them (techniques.md 7)."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from stillroom.methods._ranks import pearson, soft_rank, spearman

seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 12))
widths = st.floats(1e-3, 1e3)


def drawn(shape, seed, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@given(shapes, seeds, widths)
def test_ranks_sum_to_those_of_a_permutation_and_lie_between_them(shape, seed, reg):
    """techniques.md 7: the sum of soft ranks is n (n + 1) / 2 to 1e-5; in float32 too."""
    n, x = shape[1], drawn(shape, seed)
    for dtype in (torch.float64, torch.float32):
        ranks = soft_rank(x.to(dtype), reg)
        assert (ranks.sum(1) - n * (n + 1) / 2).abs().max() <= (1e-5 if dtype == torch.float64 else 1e-4 * n)
        assert ranks.min() >= 1 - 1e-3 and ranks.max() <= n + 1e-3


@given(shapes, seeds, widths)
def test_ranks_keep_the_order(shape, seed, reg):
    x = drawn(shape, seed)
    ranks = soft_rank(x, reg).gather(1, x.argsort(1))
    assert (ranks.diff(dim=1) >= -1e-9).all()


@given(shapes, seeds, widths, st.floats(0.1, 10), st.floats(-10, 10))
def test_shift_scale_and_order(shape, seed, reg, scale, shift):
    x, order = drawn(shape, seed), torch.randperm(shape[1])
    ranks = soft_rank(x, reg)
    assert torch.allclose(soft_rank(x + shift, reg), ranks, atol=1e-6)
    assert torch.allclose(soft_rank(x * scale, reg * scale), ranks, atol=1e-6)
    assert torch.allclose(soft_rank(x[:, order], reg), ranks[:, order], atol=1e-9)
    assert torch.allclose(soft_rank(-x, reg), shape[1] + 1 - ranks, atol=1e-6)


@given(shapes, seeds)
@settings(max_examples=20)
def test_numbers_that_lie_apart_get_whole_ranks(shape, seed):
    whole = torch.stack([torch.randperm(shape[1]) for _ in range(shape[0])]).double()
    assert torch.equal(soft_rank(whole, 0.9), whole + 1)
    assert torch.allclose(soft_rank(torch.zeros(shape).double(), 0.1), torch.full(shape, (shape[1] + 1) / 2).double())


@given(st.integers(0, 200))
@settings(max_examples=5, deadline=None)
def test_gradient(seed):
    """techniques.md 7: gradcheck passes, of the ranks and of the correlation, wherever no groups are about to part."""
    x, y = drawn((3, 6), seed), drawn((3, 6), seed + 1000)
    for reg in (0.3, 3.0):
        assert torch.autograd.gradcheck(lambda x, reg=reg: soft_rank(x, reg), x.clone().requires_grad_(), eps=1e-8)
        assert torch.autograd.gradcheck(
            lambda x, y, reg=reg: spearman(x, y, reg), (x.clone().requires_grad_(), y.requires_grad_()), eps=1e-8
        )


@given(seeds)
@settings(max_examples=20)
def test_the_gap_to_the_exact_correlation_closes(seed):
    """techniques.md 7: |soft - exact| <= 1e-3 at reg = 1e-3 without ties; here no two numbers are nearer than 0.01."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (
        0.03 * torch.randperm(20, generator=generator) + 0.02 * torch.rand(20, generator=generator).double()
        for _ in range(2)
    )
    exact = spearmanr(x.numpy(), y.numpy()).statistic
    gaps = [abs(spearman(x[None], y[None], reg).item() - exact) for reg in (1.0, 1e-1, 1e-3)]
    assert gaps[2] <= 1e-3 and gaps[2] <= gaps[1] + 1e-9
    assert abs(spearman(x[None], y[None], 0).item() - exact) <= 1e-12


@given(seeds)
@settings(max_examples=20)
def test_far_apart_ranks_are_exact_and_wide_ones_are_values(seed):
    """A large reg turns Spearman's correlation into Pearson's."""
    x, y = drawn((4, 9), seed), drawn((4, 9), seed + 1)
    assert torch.allclose(spearman(x, y, 100), pearson(x, y), atol=1e-9)


@given(seeds, st.floats(0.1, 10), st.floats(-10, 10))
@settings(max_examples=20)
def test_correlations_are_between_minus_one_and_one_and_ignore_scale(seed, scale, shift):
    x, y = drawn((4, 9), seed), drawn((4, 9), seed + 1)
    assert (pearson(x, y).abs() <= 1 + 1e-12).all()
    assert torch.allclose(pearson(scale * x + shift, y), pearson(x, y), atol=1e-9)
    assert torch.allclose(pearson(x, -scale * x), -torch.ones(4).double(), atol=1e-9)
    assert torch.allclose(spearman(x, x, 0.1), torch.ones(4).double(), atol=1e-9)


def test_rows_without_spread_correlate_with_nothing():
    flat = torch.zeros(2, 5, requires_grad=True)
    for rho in (pearson(flat, torch.randn(2, 5)), spearman(flat, torch.randn(2, 5), 0.1)):
        (grad,) = torch.autograd.grad(rho.sum(), flat)
        assert rho.tolist() == [0, 0] and grad.isfinite().all()
    assert spearman(flat.detach(), torch.randn(2, 5), 0).tolist() == [0, 0]


def test_numbers_that_are_none_stay_so_and_no_row_is_no_row():
    """A student that diverged is found by the loop, in its own words."""
    x = torch.tensor([[1.0, float("nan"), 2.0]])
    assert soft_rank(x, 1.0).isnan().any()
    assert soft_rank(torch.zeros(0, 4), 1.0).shape == (0, 4)
