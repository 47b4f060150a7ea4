"""What holds for knowledge review, whatever the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import charge, drawn, ready, teaches

from stillroom.errors import StillroomError
from stillroom.methods.reviewkd import Fusion, ReviewKD, hcl_loss

seeds = st.integers(0, 2**31)


@given(seeds, st.integers(1, 9))
@settings(max_examples=20)
def test_zero_at_equality_and_never_below(seed, side):
    """techniques.md 18: HCL(f, f) = 0."""
    s, t = drawn(2, 3, side, side, seed=seed), drawn(2, 3, side, side, seed=seed + 1)
    assert hcl_loss(s, s) == 0
    assert hcl_loss(s, t) > 0
    assert hcl_loss(s * 3, t * 3).item() == pytest.approx(9 * hcl_loss(s, t).item(), rel=1e-9)


@given(seeds, st.integers(1, 9), st.floats(0.1, 10))
@settings(max_examples=20)
def test_a_constant_gap_costs_its_square_at_every_level(seed, side, gap):
    """The weights of the levels are divided by their total: they sum to 1."""
    t = drawn(2, 3, side, side, seed=seed)
    assert hcl_loss(t + gap, t).item() == pytest.approx(gap**2, rel=1e-9)


def test_a_gap_without_a_mean_is_seen_by_fine_levels_only():
    """A chessboard of +1 and -1 on 8x8 vanishes at 4x4: 1 of a total weight of 1 + 1/2 + 1/4 + 1/8."""
    board = torch.ones(1, 1, 8, 8)
    board[..., ::2, ::2] = board[..., 1::2, 1::2] = -1
    assert hcl_loss(board, torch.zeros(1, 1, 8, 8)).item() == pytest.approx(1 / 1.875)


def test_gradient_half_precision_one_image_and_none():
    s, t = drawn(2, 2, 5, 5).requires_grad_(), drawn(2, 2, 5, 5, seed=1)
    assert torch.autograd.gradcheck(lambda x: hcl_loss(x, t), (s,))
    for dtype in (torch.float16, torch.bfloat16):
        assert hcl_loss(s.to(dtype) * 1000, t.to(dtype) * 1000).isfinite()
    assert hcl_loss(s[:1], t[:1]).isfinite()
    none = torch.zeros(0, 3, 4, 4, requires_grad=True)
    hcl_loss(none, torch.zeros(0, 3, 4, 4)).backward()
    assert hcl_loss(none, none) == 0 and none.grad.shape == none.shape


PYRAMIDS = {
    "one stage": ([(4, 3, 4, 4)], [(4, 5, 2, 2)]),
    "a pyramid": ([(4, 3, 8, 8), (4, 6, 4, 4), (4, 7, 2, 2)], [(4, 5, 8, 8), (4, 9, 4, 4), (4, 2, 2, 2)]),
    "tokens of two ViTs": ([(4, 17, 3)] * 4, [(4, 10, 5)] * 4),
    "a pyramid to tokens": ([(4, 3, 8, 8), (4, 6, 4, 4)], [(4, 17, 5), (4, 17, 5)]),
    "with pooled vectors": ([(4, 3, 4, 4), (4, 6)], [(4, 5, 4, 4), (4, 9)]),
    "vectors": ([(4, 3)], [(4, 5)]),
}


@pytest.mark.parametrize("kind", PYRAMIDS)
def test_every_pyramid_teaches(kind):
    s, t = ([drawn(*shape, seed=i) for i, shape in enumerate(side)] for side in PYRAMIDS[kind])
    method = ready(ReviewKD(), s, t)
    assert teaches(method, s, t) and teaches(method, [x[:1] for x in s], [x[:1] for x in t])


def test_late_stages_guide_early_ones_and_not_the_other_way():
    """The charge of the deepest stage depends on it alone; that of the first depends on all."""
    s = [drawn(4, 3, 4, 4).requires_grad_(), drawn(4, 3, 2, 2).requires_grad_()]
    t = [drawn(4, 5, 4, 4, seed=1), drawn(4, 5, 2, 2, seed=1)]
    method = ready(ReviewKD(), [x.detach() for x in s], t)
    deep, handed = method.fuse[1](s[1], None, t[1])
    first, _ = method.fuse[0](s[0], handed, t[0])
    assert torch.autograd.grad(hcl_loss(deep, t[1]), s, retain_graph=True, allow_unused=True)[0] is None
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(hcl_loss(first, t[0]), s, retain_graph=True))
    expected = hcl_loss(deep, t[1]) + hcl_loss(first, t[0])
    assert charge(method, s, t).item() == pytest.approx(expected.item(), rel=1e-9)


def test_what_is_handed_on_is_no_wider_than_512():
    assert ready(ReviewKD(), [drawn(2, 600, 2, 2)], [drawn(2, 3, 2, 2)]).fuse[0].enter[0].out_channels == 512
    assert Fusion(8, 4, 3, deepest=True).share is None


def test_a_vector_has_no_places():
    with pytest.raises(StillroomError, match="SR-M330"):
        ready(ReviewKD(), [drawn(2, 3)], [drawn(2, 5, 4, 4)])
