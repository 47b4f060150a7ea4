"""What holds for the overhaul's margin and its partial distance, whatever the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import charge, drawn, ready, teaches

from stillroom.errors import StillroomError
from stillroom.methods import ofd
from stillroom.methods.ofd import OFD, margin, negatives, ofd_loss

seeds = st.integers(0, 2**31)


@given(seeds)
@settings(max_examples=30)
def test_zero_at_equality_and_never_below(seed):
    s, t = drawn(3, 4, 3, 3, seed=seed), drawn(3, 4, 3, 3, seed=seed + 1)
    m = margin(negatives(t))
    assert ofd_loss(t, t, m) == 0
    assert 0 < ofd_loss(s, t, m) <= (s - t.maximum(m.view(1, 4, 1, 1))).square().sum() / 3


@given(seeds, st.floats(0, 100))
@settings(max_examples=30)
def test_a_student_below_a_negative_target_is_charged_nothing(seed, lower):
    """And it feels nothing: where the teacher is silent there is no telling how silent."""
    t = -drawn(2, 3, 2, 2, seed=seed).abs()
    m = margin(negatives(t))
    s = (t.maximum(m.view(1, 3, 1, 1)) - lower).requires_grad_()
    loss = ofd_loss(s, t, m)
    (grad,) = torch.autograd.grad(loss, s)
    assert loss == 0 and grad.abs().max() == 0


def test_one_element_in_each_of_the_cases():
    """Margin -1. Teacher positive: always charged. Below the margin: towards it, from above only."""
    m = torch.tensor([-1.0], dtype=torch.float64)

    def one(s, t):
        return ofd_loss(*(torch.full((1, 1, 1, 1), x, dtype=torch.float64) for x in (s, t)), m).item()

    assert [one(5, 2), one(-3, 2)] == [9, 25]
    assert [one(0, -0.5), one(-0.75, -0.5)] == [0.25, 0]
    assert [one(0, -7), one(-0.5, -7), one(-1.5, -7), one(-9, -7)] == [1, 0.25, 0, 0]


def test_the_margin_is_the_mean_of_what_is_negative():
    t = torch.tensor([[[[1.0, -2.0]], [[3.0, 4.0]]], [[[-4.0, 0.0]], [[5.0, 0.0]]]])
    assert margin(negatives(t)).tolist() == [-3.0, 0.0]


def test_the_margin_is_that_of_all_processes(monkeypatch):
    """Sums and counts are added, so two halves of a batch, in two processes, have the margin of the whole."""
    s, t = drawn(6, 4, 3, 3), drawn(6, 4, 3, 3, seed=1) - 0.5
    method = ready(OFD(), [s], [t]).eval()
    whole = charge(method, [s], [t]).item()
    assert whole != pytest.approx(sum(charge(method, [s[i]], [t[i]]).item() for i in (slice(2), slice(2, 6))), rel=1e-3)
    found = 0.0
    for mine, other in ((slice(2), slice(2, 6)), (slice(2, 6), slice(2))):
        monkeypatch.setattr(ofd, "total", lambda x, other=other: x + negatives(t[other]))
        found += charge(method, [s[mine]], [t[mine]]).item() * len(s[mine]) / 6
    assert found == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_a_deeper_stage_counts_double(stages):
    """With equal features at every stage the charge is that of one stage times 1 + 1/2 + 1/4 + ..."""
    s, t = drawn(4, 3, 4, 4), drawn(4, 5, 4, 4, seed=1)
    one = ready(OFD(), [s], [t])
    several = ready(OFD(), [s] * stages, [t] * stages)
    for adapt in several.adapt:
        adapt.load_state_dict(one.adapt[0].state_dict())
    expected = charge(one, [s], [t]).item() * (2 - 0.5 ** (stages - 1))
    assert charge(several, [s] * stages, [t] * stages).item() == pytest.approx(expected, rel=1e-12)


def test_the_deepest_stage_is_the_one_that_counts_whole():
    s, t = [drawn(4, 3, 4, 4), drawn(4, 3, 2, 2)], [drawn(4, 5, 4, 4, seed=1), drawn(4, 5, 2, 2, seed=1)]
    method = ready(OFD(), s, t)
    apart = [ofd_loss(adapt(x), y, margin(negatives(y))).item() for adapt, x, y in zip(method.adapt, s, t, strict=True)]
    assert charge(method, s, t).item() == pytest.approx(apart[0] / 2 + apart[1], rel=1e-9)


def test_gradient_half_precision_and_no_image():
    s, t = drawn(2, 3, 2, 2).requires_grad_(), drawn(2, 3, 2, 2, seed=1)
    m = margin(negatives(t))
    assert torch.autograd.gradcheck(lambda x: ofd_loss(x, t, m), (s,))
    for dtype in (torch.float16, torch.bfloat16):
        assert ofd_loss(s.to(dtype) * 1000, t.to(dtype) * 1000, margin(negatives(t.to(dtype) * 1000))).isfinite()
    none = torch.zeros(0, 3, 4, 4, dtype=s.dtype, requires_grad=True)
    loss = ofd_loss(none, none.detach(), margin(negatives(none.detach())))
    loss.backward()
    assert loss == 0 and none.grad.shape == none.shape


MIXED = {
    "maps": ((4, 3, 4, 4), (4, 5, 2, 2)),
    "tokens to a map": ((4, 17, 3), (4, 5, 8, 8)),
    "vectors": ((4, 3), (4, 5)),
}


@pytest.mark.parametrize("kind", MIXED)
def test_every_kind_of_feature_teaches(kind):
    s, t = drawn(*MIXED[kind][0]), drawn(*MIXED[kind][1], seed=1)
    method = ready(OFD(), [s, s], [t, t])
    assert teaches(method, [s, s], [t, t]) and teaches(method, [s[:1]] * 2, [t[:1]] * 2)


def test_a_vector_has_no_places():
    with pytest.raises(StillroomError, match="SR-M330"):
        ready(OFD(), [drawn(2, 3)], [drawn(2, 5, 4, 4)])
