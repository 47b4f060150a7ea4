"""Transport between distributions over classes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.methods._transport import divergence, marginal_error, ordinal_distance, plan, scalings, transport_cost

shapes = st.tuples(st.integers(1, 5), st.integers(2, 9))
seeds = st.integers(0, 2**31)
regs = st.floats(0.02, 0.5)


def drawn(shape, seed, dtype=torch.float64):
    """Two lists of distributions, log-probabilities [M, K], and prices [K, K] in 0..1 that are 0 on the diagonal."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(shape, generator=generator, dtype=dtype).log_softmax(1) for _ in range(2))
    cost = torch.rand(shape[1], shape[1], generator=generator, dtype=dtype)
    return a, b, ((cost + cost.T) / 2).fill_diagonal_(0)


@given(shapes, seeds, regs)
def test_the_plan_s_columns_are_right_and_its_rows_become_so(shape, seed, reg):
    a, b, cost = drawn(shape, seed)
    errors = []
    for iterations in (1, 10, 100):
        found = plan(*scalings(a, b, cost, reg=reg, iterations=iterations), cost, reg=reg)
        assert torch.allclose(found.sum(1), b.exp(), atol=1e-12) and found.min() >= 0
        errors.append(marginal_error(found, a, b).max())
    assert errors[2] <= errors[1] + 1e-12 and errors[1] <= errors[0] + 1e-12


@given(shapes, seeds, regs)
def test_the_cost_is_that_of_the_plan_once_it_fits(shape, seed, reg):
    a, b, cost = drawn(shape, seed)
    found = plan(*scalings(a, b, cost, reg=reg, iterations=300), cost, reg=reg)
    error, charged = marginal_error(found, a, b), transport_cost(a, b, cost, reg=reg, iterations=300)
    assert ((found * cost).sum((1, 2)) - charged).abs().max() <= error.max() + 1e-12


@given(shapes, seeds, regs)
def test_between_zero_and_the_highest_price(shape, seed, reg):
    a, b, cost = drawn(shape, seed)
    found = transport_cost(a, b, cost, reg=reg, iterations=20)
    assert (found >= 0).all() and (found <= cost.max() + 1e-12).all()


@given(shapes, seeds)
def test_both_directions_and_all_orders_cost_the_same(shape, seed):
    a, b, cost = drawn(shape, seed)
    order = torch.randperm(shape[1])
    found = transport_cost(a, b, cost, reg=0.3, iterations=200)
    back = transport_cost(b[:, order], a[:, order], cost[order][:, order], reg=0.3, iterations=200)
    assert torch.allclose(found, back, atol=1e-7)


@given(shapes, seeds, regs)
def test_debiased_is_nothing_at_equality(shape, seed, reg):
    """Genevay et al. 2018: S(p, p) = 0 exactly; the cost of the smeared plan is not."""
    a, _, cost = drawn(shape, seed)
    assert not divergence(a, a, cost, reg=reg, iterations=30).any()
    assert (transport_cost(a, a, cost + 0.01 * (cost > 0), reg=0.1, iterations=30) > 0).all()


@given(seeds, st.floats(0.1, 1))
def test_with_equal_prices_it_is_half_the_difference(seed, price):
    """With one price for all moves the cheapest plan costs price x sum |p - q| / 2; a sharp plan comes near it."""
    a, b, _ = drawn((4, 6), seed)
    cost = price * (1 - torch.eye(6, dtype=torch.float64))
    cheapest = price * (a.exp() - b.exp()).abs().sum(1) / 2
    found = transport_cost(a, b, cost, reg=price / 12, iterations=200)
    assert (found >= cheapest - 1e-12).all() and torch.allclose(found, cheapest, atol=1e-3)


def test_near_classes_are_cheaper_than_far_ones():
    """Prices 0.1 between 0 and 1, 0.9 to 2: mass that has to go from 0 to 1 costs less than from 0 to 2."""
    cost = torch.tensor([[0, 0.1, 0.9], [0.1, 0, 0.9], [0.9, 0.9, 0]], dtype=torch.float64)
    p = torch.tensor([[0.8, 0.1, 0.1]] * 2).double()
    q = torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]).double()
    near, far = transport_cost(p.log(), q.log(), cost, reg=0.02, iterations=2000).tolist()
    assert near == pytest.approx(0.07, abs=2e-3) and far == pytest.approx(0.63, abs=2e-2)


def test_classes_without_mass_are_as_if_they_were_not_there():
    a, b, cost = drawn((3, 6), 0)
    left = [0, 2, 3, 5]
    gone = torch.tensor([False, True, False, False, True, False])
    masked = [x.masked_fill(gone, -torch.inf).log_softmax(1).requires_grad_() for x in (a, b)]
    found = transport_cost(*masked, cost, reg=0.05, iterations=50)
    small = [x[:, left].log_softmax(1) for x in (a, b)]
    assert torch.allclose(found, transport_cost(*small, cost[left][:, left], reg=0.05, iterations=50), rtol=1e-12)
    found.sum().backward()
    assert masked[0].grad.isfinite().all() and not masked[0].grad[:, gone].any()


@pytest.mark.parametrize(("seed", "reg"), [(0, 0.05), (1, 0.2), (2, 0.5)])
def test_gradient(seed, reg):
    a, b, cost = drawn((2, 4), seed)
    for f in (transport_cost, divergence):
        assert torch.autograd.gradcheck(
            lambda z, f=f: f(z.log_softmax(1), b, cost, reg=reg, iterations=30), a.clone().requires_grad_(), atol=1e-4
        )


@pytest.mark.parametrize("seed", range(5))
def test_float32_is_enough(seed):
    """At prices up to 1 and reg 0.0125, the least that WKD-L allows: value and gradient as in float64."""
    for reg in (0.05, 0.0125):
        found = []
        for dtype in (torch.float32, torch.float64):
            z, b, cost = (x.to(dtype) for x in drawn((4, 10), seed))
            z.requires_grad_()
            value = transport_cost(z.log_softmax(1), b, cost / cost.max(), reg=reg, iterations=100)
            value.sum().backward()
            found.append((value.detach().double(), z.grad.double()))
        assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
        assert (found[0][1] - found[1][1]).norm() <= 1e-3 * found[1][1].norm()


@given(shapes, seeds)
def test_ordinal_distance(shape, seed):
    a, b, _ = drawn(shape, seed)
    p, q = a.exp(), b.exp()
    found = ordinal_distance(p, q)
    assert not ordinal_distance(p, p).any() and (found >= 0).all() and (found <= shape[1] - 1).all()
    assert torch.allclose(found, ordinal_distance(q, p)) and torch.allclose(
        found, ordinal_distance(p.flip(1), q.flip(1))
    )


def test_a_plan_that_fits_to_the_last_bit_leaves_a_finite_gradient():
    """With equal prices nothing is left to move, and 0 / 0 has no gradient; float32, as a run has it."""
    generator = torch.Generator().manual_seed(0)
    z, b = (3 * torch.randn(64, 4, generator=generator) for _ in range(2))
    cost = 0.632 * (1 - torch.eye(4))
    z.requires_grad_()
    transport_cost(z.log_softmax(1), b.log_softmax(1), cost, reg=0.05, iterations=50).sum().backward()
    assert z.grad.isfinite().all() and 0 < z.grad.abs().max() < 1


def test_ordinal_distance_counts_the_classes_moved():
    eye = torch.eye(5)
    assert ordinal_distance(eye[:1].expand(5, -1), eye).tolist() == [0, 1, 2, 3, 4]
