"""What holds for variational information distillation, whatever the numbers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import charge, drawn, ready, teaches

from stillroom.errors import StillroomError
from stillroom.methods.vid import LEAST, VID, vid_loss

seeds = st.integers(0, 2**31)


@given(seeds, st.floats(0.01, 20))
@settings(max_examples=20)
def test_least_where_guess_and_teacher_agree(seed, scale):
    t, guess = drawn(2, 4, 3, 3, seed=seed), drawn(2, 4, 3, 3, seed=seed + 1)
    variance = (drawn(4, seed=seed + 2).abs() + 0.1) * scale
    least = vid_loss(t, t, variance).item()
    assert least == pytest.approx(variance.log().mean().item() / 2, rel=1e-9, abs=1e-12)
    assert vid_loss(guess, t, variance) > least


def test_negative_where_a_guess_is_good():
    t = drawn(2, 4, 3, 3)
    assert vid_loss(t, t, torch.full((4,), 0.01)).item() == pytest.approx(math.log(0.01) / 2)


@given(seeds)
@settings(max_examples=20)
def test_the_best_variance_of_a_channel_is_its_mean_square_error(seed):
    t, guess = drawn(2, 4, 3, 3, seed=seed), drawn(2, 4, 3, 3, seed=seed + 1)
    variance = (t - guess).square().mean((0, 2, 3)).requires_grad_()
    (grad,) = torch.autograd.grad(vid_loss(guess, t, variance), variance)
    assert grad.abs().max() < 1e-10


@given(seeds, st.floats(-100, 100))
@settings(max_examples=20)
def test_only_the_difference_counts(seed, shift):
    t, guess, variance = drawn(2, 4, 3, 3, seed=seed), drawn(2, 4, 3, 3, seed=seed + 1), torch.tensor([0.1, 1, 2, 9])
    moved = vid_loss(guess + shift, t + shift, variance).item()
    assert moved == pytest.approx(vid_loss(guess, t, variance).item(), rel=1e-9)


def test_gradient_half_precision_one_image_and_none():
    s, t, v = drawn(2, 3, 2, 2).requires_grad_(), drawn(2, 3, 2, 2, seed=1), drawn(3, seed=2).abs() + 0.2
    assert torch.autograd.gradcheck(lambda x, v: vid_loss(x, t, v), (s, v.requires_grad_()))
    for dtype in (torch.float16, torch.bfloat16):
        assert vid_loss(s.to(dtype) * 1000, t.to(dtype) * 1000, v).isfinite()
    none = torch.zeros(0, 3, 4, 4, requires_grad=True)
    vid_loss(none, torch.zeros(0, 3, 4, 4), v).backward()
    assert vid_loss(none, none, v) == 0 and none.grad.shape == none.shape


@pytest.mark.parametrize("variance", [2e-5, 0.1, 5.0, 100.0])
def test_every_channel_begins_with_the_same_doubt(variance):
    s, t = drawn(2, 3, 4, 4), drawn(2, 5, 4, 4, seed=1)
    method = ready(VID(variance=variance), [s], [t])
    assert torch.allclose(F.softplus(method.doubt[0]) + LEAST, torch.full((5,), variance, dtype=s.dtype), rtol=1e-5)


def test_doubts_are_learned():
    """Channels that can't be guessed end with the larger variance, about that of their noise, which is 9."""
    s = drawn(64, 2, 2, 2).abs()
    t = torch.cat([s.sum(1, keepdim=True).expand(-1, 8, -1, -1), 3 * drawn(64, 8, 2, 2, seed=1)], 1)
    method = ready(VID(), [s], [t])
    optimizer = torch.optim.Adam(method.parameters(), lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        charge(method, [s], [t]).backward()
        optimizer.step()
    variance = F.softplus(method.doubt[0]) + LEAST
    assert variance[:8].max() < 0.5 and variance[8:].min() > 4 and variance[8:].max() < 12


MIXED = {
    "maps": ((4, 3, 4, 4), (4, 5, 2, 2)),
    "tokens to a map": ((4, 17, 3), (4, 5, 8, 8)),
    "vectors": ((4, 3), (4, 5)),
}


@pytest.mark.parametrize("kind", MIXED)
def test_every_kind_of_feature_teaches(kind):
    s, t = drawn(*MIXED[kind][0]), drawn(*MIXED[kind][1], seed=1)
    method = ready(VID(), [s, s], [t, t])
    assert teaches(method, [s, s], [t, t]) and teaches(method, [s[:1]] * 2, [t[:1]] * 2)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"variance must be above 1e-05, got 0"):
        VID(variance=0)
    with pytest.raises(StillroomError, match="SR-M330"):
        ready(VID(), [drawn(2, 3)], [drawn(2, 5, 4, 4)])
