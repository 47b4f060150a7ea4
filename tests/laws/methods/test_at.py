"""What attention transfer must not notice, and what it must."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import drawn, ready, teaches

from stillroom.errors import StillroomError
from stillroom.methods.at import AT, at_loss, attention

seeds = st.integers(0, 2**31)
powers = st.sampled_from([1.0, 2.0, 4.0])


@given(seeds, powers, st.floats(1e-3, 1e3))
@settings(max_examples=30)
def test_scale_and_order_of_channels_do_not_matter(seed, power, scale):
    """techniques.md 14: invariant to positive scaling of a map and to channel permutation, 1e-6."""
    s, t = drawn(3, 5, 4, 4, seed=seed), drawn(3, 7, 4, 4, seed=seed + 1)
    each = torch.rand(3, 1, 1, 1, dtype=s.dtype, generator=torch.Generator().manual_seed(seed)) + 0.1
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    expected = at_loss(s, t, power).item()
    assert at_loss(s * scale, t, power).item() == pytest.approx(expected, rel=1e-6)
    assert at_loss(s, t * each, power).item() == pytest.approx(expected, rel=1e-6)
    assert at_loss(s[:, order], t, power).item() == pytest.approx(expected, rel=1e-6)


@given(seeds, powers)
@settings(max_examples=20)
def test_zero_at_equality_and_within_its_bounds(seed, power):
    s, t = drawn(3, 5, 4, 4, seed=seed), drawn(3, 2, 4, 4, seed=seed + 1)
    assert at_loss(s, s, power) == 0
    assert 0 < at_loss(s, t, power) <= 2 / 16
    assert (
        torch.allclose(attention(s, power).norm(dim=1), torch.ones(3, dtype=s.dtype)) and attention(s, power).min() >= 0
    )


def test_the_largest_value_is_reached_by_looking_elsewhere():
    s, t = torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 2, 2)
    s[0, 0, 0, 0], t[0, 1, 1, 1] = 3.0, -0.5
    assert at_loss(s, t).item() == pytest.approx(2 / 4, rel=1e-6)


def test_any_size_of_numbers_and_a_dead_map():
    s, t = drawn(2, 3, 4, 4, dtype=torch.float32), drawn(2, 3, 4, 4, seed=1, dtype=torch.float32)
    expected = at_loss(s, t, 4.0).item()
    for scale in (1e-30, 1e30):
        assert at_loss(s * scale, t, 4.0).item() == pytest.approx(expected, rel=1e-4)
    dead = torch.zeros(2, 3, 4, 4, requires_grad=True)
    at_loss(dead, t).backward()
    assert attention(dead).abs().sum() == 0 and dead.grad.isfinite().all()


def test_gradient_half_precision_one_image_and_none():
    s, t = drawn(2, 3, 4, 4).requires_grad_(), drawn(2, 5, 2, 2, seed=1)
    for power in (1.0, 2.0, 3.0):
        assert torch.autograd.gradcheck(lambda x, power=power: at_loss(x, t, power), (s,))
    for dtype in (torch.float16, torch.bfloat16):
        assert at_loss(s.to(dtype) * 1e4, t.to(dtype), 4.0).isfinite()
    near = at_loss(s.half(), t.half()).item()
    assert near == pytest.approx(at_loss(s, t).item(), rel=0.02)
    none = torch.zeros(0, 3, 4, 4, requires_grad=True)
    at_loss(none, t[:0]).backward()
    assert at_loss(none, t[:0]) == 0 and none.grad.shape == none.shape


def test_tokens_maps_and_sizes_mix():
    s, t = [drawn(4, 17, 3), drawn(4, 2, 8, 8)], [drawn(4, 5, 8, 8, seed=1), drawn(4, 10, 7, seed=1)]
    method = ready(AT(), s, t)
    assert teaches(method, s, t) and teaches(method, [x[:1] for x in s], [x[:1] for x in t])


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"power must be at least 1, got 0\.5"):
        AT(power=0.5)
    with pytest.raises(StillroomError, match="SR-M330") as caught:
        ready(AT(), [drawn(2, 3)], [drawn(2, 5)])
    assert "a vector has none" in caught.value.why
