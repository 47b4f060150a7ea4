"""`cosine` and `simreg`: what they must not notice, and what they must."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.features import charge, drawn, ready, teaches
from sklearn.metrics.pairwise import cosine_similarity
from torch import nn

from stillroom.methods.cosine import Cosine, cosine_loss
from stillroom.methods.simreg import SimReg, simreg_loss

seeds = st.integers(0, 2**31)


@given(seeds, st.floats(1e-3, 1e3))
@settings(max_examples=25, deadline=None)
def test_length_does_not_matter_and_direction_does(seed, scale):
    s, t = drawn(5, 7, seed=seed), drawn(5, 7, seed=seed + 1)
    angle = 1 - cosine_similarity(s.numpy(), t.numpy()).diagonal().mean()
    assert cosine_loss(s * scale, t).item() == pytest.approx(angle, rel=1e-6)
    assert simreg_loss(s * scale, t).item() == pytest.approx(2 * angle, rel=1e-6)
    assert cosine_loss(s, s * scale).item() == pytest.approx(0, abs=1e-9)
    assert cosine_loss(s, -s * scale).item() == pytest.approx(2)
    assert simreg_loss(s, s, unit=False) == 0
    loops = sum((a - b) ** 2 for x, y in zip(s.tolist(), t.tolist(), strict=True) for a, b in zip(x, y, strict=True))
    assert simreg_loss(s, t, unit=False).item() == pytest.approx(loops / 35, rel=1e-9)


def test_zeros_half_precision_gradient_and_none():
    zeros = torch.zeros(2, 3, requires_grad=True)
    t = drawn(2, 3, seed=1, dtype=torch.float32)
    for loss in (cosine_loss, simreg_loss):
        loss(zeros, t).backward()
        assert zeros.grad.isfinite().all()
        assert loss(t.half(), t.half()).item() == pytest.approx(0, abs=1e-6)
        assert loss(zeros[:0], t[:0]) == 0
        assert torch.autograd.gradcheck(
            lambda x, loss=loss: loss(x, drawn(2, 3, seed=1)), (drawn(2, 3).requires_grad_(),)
        )
    assert cosine_loss(torch.zeros(2, 3), t) == 1


def test_a_projector_stands_only_where_it_must():
    s, t = [drawn(4, 6)], [drawn(4, 6, seed=1)]
    assert not list(ready(Cosine(), s, t).parameters())
    assert charge(ready(Cosine(), s, t), s, t).item() == pytest.approx(cosine_loss(s[0], t[0]).item())
    wider = [drawn(4, 9, seed=1)]
    method = ready(Cosine(), s, wider)
    assert isinstance(method.align[0], nn.Linear) and teaches(method, s, wider)
    expected = cosine_loss(s[0] @ method.align[0].weight.T + method.align[0].bias, wider[0]).item()
    assert charge(method, s, wider).item() == pytest.approx(expected, rel=1e-9)


def test_regress_is_its_projectors_output():
    s, t = [drawn(4, 6), drawn(4, 17, 3)], [drawn(4, 9, seed=1), drawn(4, 5, 4, 4, seed=1)]
    for layers in (1, 2, 3):
        method = ready(SimReg(layers=layers), s, t)
        assert teaches(method, s, t) and teaches(method, [x[:1] for x in s], [x[:1] for x in t])
        assert sum(isinstance(part, nn.Linear) for part in method.projectors[0]) == layers
    method = ready(SimReg(layers=1, unit=False), s[:1], t[:1])
    linear = method.projectors[0][0]
    expected = (s[0] @ linear.weight.T + linear.bias - t[0]).square().mean().item()
    assert charge(method, s[:1], t[:1]).item() == pytest.approx(expected, rel=1e-9)
    assert math.isfinite(expected) and expected > 0


def test_what_is_refused():
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        SimReg(layers=0)
