"""What holds for neuron selectivity transfer, whatever the numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import drawn, ready, teaches

from stillroom.errors import StillroomError
from stillroom.methods._mmd import mmd, polynomial
from stillroom.methods.nst import NST, nst_loss

seeds = st.integers(0, 2**31)
sizes = st.sampled_from([(3, 5, 4), (12, 9, 2), (2, 20, 3)])  # channels of both, side: both ways to multiply


@given(seeds, sizes)
@settings(max_examples=30)
def test_a_set_of_channels_has_no_order_no_size_and_no_sign(seed, size):
    c, d, side = size
    s, t = drawn(2, c, side, side, seed=seed), drawn(2, d, side, side, seed=seed + 1)
    order = torch.randperm(c, generator=torch.Generator().manual_seed(seed))
    factors = drawn(2, c, 1, 1, seed=seed + 2)
    expected = nst_loss(s, t).item()
    assert 0 < expected <= 2
    assert nst_loss((s * factors)[:, order], t).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert nst_loss(t, s).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert nst_loss(s, s) == 0
    assert nst_loss(torch.cat([s, s[:, order]], 1), s).item() == pytest.approx(0, abs=1e-12)


@given(seeds, sizes)
@settings(max_examples=30)
def test_it_is_the_biased_discrepancy_of_the_squared_product(seed, size):
    """techniques.md 3: k(x, y) = (x . y + c)^d with d = 2, c = 0 over channel-normalised maps."""
    c, d, side = size
    s, t = drawn(3, c, side, side, seed=seed), drawn(3, d, side, side, seed=seed + 1)
    rows = [F.normalize(x.flatten(2), dim=2) for x in (s, t)]
    expected = mmd(*rows, polynomial(2, 0.0), biased=True).mean().item()
    assert nst_loss(s, t).item() == pytest.approx(expected, rel=1e-9, abs=1e-13)


def test_the_largest_value():
    """All channels of one at one place, all of the other at another."""
    s, t = torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2)
    s[:, :, 0, 0], t[:, :, 1, 1] = 2.0, -5.0
    assert nst_loss(s, t) == 2


def test_gradient_half_precision_dead_channels_and_no_image():
    s, t = drawn(2, 3, 3, 3).requires_grad_(), drawn(2, 4, 3, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: nst_loss(x, t), (s,))
    wide = drawn(2, 6, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: nst_loss(x, drawn(2, 5, 2, 2, seed=1)), (wide,))
    for dtype in (torch.float16, torch.bfloat16):
        assert nst_loss(s.to(dtype) * 1000, t.to(dtype) * 1000).isfinite()
    with torch.autocast("cpu", torch.bfloat16):
        assert nst_loss(s.float(), t.float()).item() == pytest.approx(nst_loss(s, t).item(), rel=1e-4)
    dead = torch.cat([drawn(2, 2, 3, 3), torch.zeros(2, 1, 3, 3, dtype=t.dtype)], 1).requires_grad_()
    nst_loss(dead, t).backward()
    assert dead.grad.isfinite().all() and dead.grad[:, 2].abs().max() == 0
    none = torch.zeros(0, 3, 4, 4, requires_grad=True)
    nst_loss(none, torch.zeros(0, 3, 4, 4)).backward()
    assert nst_loss(none, none) == 0 and none.grad.shape == none.shape


def test_tokens_maps_and_sizes_mix():
    s, t = [drawn(4, 17, 3), drawn(4, 2, 8, 8)], [drawn(4, 5, 8, 8, seed=1), drawn(4, 10, 7, seed=1)]
    method = ready(NST(), s, t)
    assert teaches(method, s, t) and teaches(method, [x[:1] for x in s], [x[:1] for x in t])


def test_vectors_are_refused():
    with pytest.raises(StillroomError, match="SR-M330") as caught:
        ready(NST(), [drawn(2, 3)], [drawn(2, 5)])
    assert "a vector has none" in caught.value.why
