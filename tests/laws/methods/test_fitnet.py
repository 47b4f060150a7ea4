"""What holds for a hint, whatever the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import charge, drawn, ready, teaches

from stillroom.errors import StillroomError
from stillroom.methods.fitnet import FitNet, hint_loss

seeds = st.integers(0, 2**31)


@given(seeds, st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=20)
def test_zero_at_equality_and_equal_to_the_mean_square(seed, channels, side):
    student, teacher = drawn(2, channels, side, side, seed=seed), drawn(2, channels, side, side, seed=seed + 1)
    assert hint_loss(student, student) == 0
    assert hint_loss(student, teacher).item() == pytest.approx((student - teacher).square().mean().item(), rel=1e-12)


def test_tokens_are_maps_and_what_stands_before_them_does_not_count():
    s, t = drawn(2, 5, 4, 4), drawn(2, 5, 4, 4, seed=1)
    tokens = torch.cat([drawn(2, 2, 5, seed=2) * 100, s.flatten(2).transpose(1, 2)], 1)
    assert hint_loss(tokens, t) == hint_loss(s, t)
    assert hint_loss(t, tokens) == hint_loss(t, s)


def test_other_sizes_are_brought_to_the_teacher_s():
    s, t = drawn(2, 3, 4, 4), drawn(2, 3, 2, 2, seed=1)
    pooled = s.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    assert hint_loss(s, t).item() == pytest.approx((pooled - t).square().mean().item(), rel=1e-12)
    assert hint_loss(torch.ones_like(t), torch.ones_like(s)) == 0
    fine = drawn(2, 10, 3, seed=2)  # a class token and 9 places
    assert hint_loss(s.flatten(2).transpose(1, 2), fine).isfinite()


def test_gradient_half_precision_one_image_and_none():
    s, t = drawn(2, 3, 4, 4).requires_grad_(), drawn(2, 3, 3, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: hint_loss(x, t), (s,))
    for dtype in (torch.float16, torch.bfloat16):
        assert hint_loss(s.to(dtype) * 1000, t.to(dtype) * 1000).isfinite()
    assert hint_loss(s[:1], t[:1]).isfinite()
    none = torch.zeros(0, 3, 4, 4, requires_grad=True)
    hint_loss(none, t[:0]).backward()
    assert hint_loss(none, t[:0]) == 0 and none.grad.shape == none.shape


MIXED = {
    "maps": ((4, 3, 4, 4), (4, 5, 2, 2)),
    "tokens": ((4, 17, 3), (4, 10, 5)),
    "tokens to a map": ((4, 17, 3), (4, 5, 8, 8)),
    "a map to tokens": ((4, 3, 8, 8), (4, 6, 5)),
    "vectors": ((4, 3), (4, 5)),
}


@pytest.mark.parametrize("kind", MIXED)
def test_whatever_has_places_can_be_compared(kind):
    s, t = drawn(*MIXED[kind][0]), drawn(*MIXED[kind][1], seed=1)
    method = ready(FitNet(), [s], [t])
    assert teaches(method, [s], [t]) and teaches(method, [s[:1]], [t[:1]])


@pytest.mark.parametrize(("s", "t"), [((2, 3), (2, 5, 4, 4)), ((2, 17, 3), (2, 5))])
def test_a_vector_has_no_places(s, t):
    with pytest.raises(StillroomError, match="SR-M330") as caught:
        ready(FitNet(), [drawn(*s)], [drawn(*t)])
    assert "one is a vector" in caught.value.why and str(list(s)) in caught.value.what


def test_no_taps_or_unequal_numbers_are_refused():
    with pytest.raises(StillroomError, match="SR-M334"):
        ready(FitNet(), [drawn(2, 3)] * 2, [drawn(2, 3)])
    with pytest.raises(StillroomError, match="SR-M334"):
        FitNet().setup(None, None)


def test_one_place_of_the_student_may_have_two_teachers():
    """Two hints cost what they cost apart, though both regressors read the same feature."""
    s, t = drawn(4, 3, 4, 4), [drawn(4, 5, 4, 4, seed=1), drawn(4, 2, 2, 2, seed=2)]
    method = ready(FitNet(), [s, s], t)
    method.student_taps = ("s0", "s0")
    apart = [hint_loss(regress(s), one).item() for regress, one in zip(method.regress, t, strict=True)]
    assert charge(method, [s], t).item() == pytest.approx(sum(apart), rel=1e-12)
