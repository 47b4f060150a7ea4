"""What holds for masked generative distillation, whatever is masked."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import charge, drawn, ready, teaches

from stillroom.errors import StillroomError
from stillroom.methods.mgd import MGD, keep, mgd_loss

seeds = st.integers(0, 2**31)


@pytest.mark.parametrize("over", ["channels", "places"])
@pytest.mark.parametrize("masked", [0.15, 0.5, 0.65])
def test_the_kept_share_is_the_expected_one(over, masked):
    """techniques.md 19: within three standard errors of 1 - masked."""
    torch.manual_seed(0)
    kept = keep(torch.zeros(100, 400, 20, 20), masked, over)
    assert kept.numel() == 40_000 and set(kept.unique().tolist()) == {0, 1}
    assert abs(kept.mean().item() - (1 - masked)) <= 3 * math.sqrt(masked * (1 - masked) / kept.numel())


def test_whole_channels_or_whole_places_are_masked():
    x = torch.ones(2, 3, 4, 5)
    assert keep(x, 0.5, "channels").shape == (2, 3, 1, 1) and keep(x, 0.5, "places").shape == (2, 1, 4, 5)
    assert torch.equal(keep(x, 0.0, "places"), torch.ones(2, 1, 4, 5))


def test_one_seed_one_mask():
    s, t = drawn(4, 3, 4, 4), drawn(4, 5, 4, 4, seed=1)
    method = ready(MGD(masked=0.5), [s], [t])
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(charge(method, [s], [t]).item())
    assert found[0] == found[1] != found[2]


def test_what_is_masked_is_not_read():
    """Without its channels a student says what the biases of the generator say, and nothing depends on it."""
    s, t = drawn(4, 5, 4, 4).requires_grad_(), drawn(4, 5, 4, 4, seed=1)
    method = ready(MGD(masked=1 - 1e-9), [s.detach()], [t])
    charge(method, [s], [t]).backward()
    assert s.grad.abs().max() == 0


@given(seeds)
@settings(max_examples=20)
def test_zero_at_equality_and_a_batch_twice_costs_the_same(seed):
    s, t = drawn(3, 2, 4, 4, seed=seed), drawn(3, 2, 4, 4, seed=seed + 1)
    assert mgd_loss(t, t) == 0
    twice = mgd_loss(torch.cat([s, s]), torch.cat([t, t])).item()
    assert twice == pytest.approx(mgd_loss(s, t).item(), rel=1e-12) and twice > 0


def test_gradient_half_precision_one_image_and_none():
    s, t = drawn(2, 3, 2, 2).requires_grad_(), drawn(2, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: mgd_loss(x, t), (s,))
    for dtype in (torch.float16, torch.bfloat16):
        assert mgd_loss(s.to(dtype) * 1000, t.to(dtype) * 1000).isfinite()
    none = torch.zeros(0, 3, 4, 4, requires_grad=True)
    mgd_loss(none, torch.zeros(0, 3, 4, 4)).backward()
    assert mgd_loss(none, none) == 0 and none.grad.shape == none.shape


MIXED = {
    "maps": ((4, 8, 4, 4), (4, 5, 2, 2)),
    "of one width": ((4, 5, 4, 4), (4, 5, 4, 4)),
    "tokens to a map": ((4, 17, 8), (4, 5, 8, 8)),
    "vectors": ((4, 8), (4, 5)),
}


@pytest.mark.parametrize("over", ["channels", "places"])
@pytest.mark.parametrize("kind", MIXED)
def test_every_kind_of_feature_teaches(kind, over):
    s, t = drawn(*MIXED[kind][0]), drawn(*MIXED[kind][1], seed=1)
    method = ready(MGD(over=over), [s], [t])
    assert teaches(method, [s], [t])
    if kind != "vectors":  # of one image's vector everything may be masked
        assert teaches(method, [s[:1]], [t[:1]])


def test_what_is_refused():
    for masked in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"masked must be at least 0 and below 1, got {masked}"):
            MGD(masked=masked)
    with pytest.raises(ValueError, match="over must be 'channels' or 'places', got 'pixels'"):
        MGD(over="pixels")
    with pytest.raises(StillroomError, match="SR-M330"):
        ready(MGD(), [drawn(2, 3)], [drawn(2, 5, 4, 4)])
