"""What holds of every grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stillroom.compress._awq import best_scale, scale_of
from stillroom.models.surgery._rounding import channelwise, fake_quantize, groupwise, scale_and_zero
from stillroom.models.surgery.rounded import Rounding

FLOATS = st.floats(-1e4, 1e4, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0)  # smaller ones count as 0
BITS = st.integers(2, 8)
WEIGHTS = arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=FLOATS)


def test_the_error_of_rounding_is_a_step_over_the_root_of_twelve() -> None:
    x = torch.rand(10**6, generator=torch.Generator().manual_seed(0))
    for bits in (2, 4, 8):
        scale, zero = scale_and_zero(torch.tensor(0.0), torch.tensor(1.0), bits)
        error = (fake_quantize(x, scale, zero, 0, 2**bits - 1) - x).square().mean().sqrt()
        assert abs(float(error / scale) * 12**0.5 - 1) < 0.02


@given(x=arrays(np.float32, 30, elements=FLOATS), low=FLOATS, high=FLOATS, bits=BITS)
def test_rounding_again_changes_nothing_and_zero_stays_zero(x: np.ndarray, low: float, high: float, bits: int) -> None:
    scale, zero = scale_and_zero(torch.tensor(low), torch.tensor(high), bits)
    once = fake_quantize(torch.tensor(x), scale, zero, 0, 2**bits - 1)
    assert torch.equal(fake_quantize(once, scale, zero, 0, 2**bits - 1), once)
    assert fake_quantize(torch.zeros(1), scale, zero, 0, 2**bits - 1) == 0 and 0 <= zero <= 2**bits - 1
    assert len(once.unique()) <= 2**bits


@given(weights=WEIGHTS, bits=BITS)
def test_channels_on_their_grid_stay_there_and_nothing_is_farther_than_half_a_step(
    weights: np.ndarray, bits: int
) -> None:
    weight = torch.tensor(weights)
    once, top = channelwise(weight, bits), 2 ** (bits - 1) - 1
    torch.testing.assert_close(channelwise(once, bits), once, rtol=1e-6, atol=0)
    step = weight.abs().amax(1, keepdim=True) / top
    assert ((once - weight).abs() <= step * 0.5001).all()
    levels = once / step.where(step > 0, 1)
    assert (levels - levels.round()).abs().max() < 1e-4 and levels.abs().max() <= top + 1e-4


@given(weights=WEIGHTS, group=st.sampled_from([4, 16, 32]))
def test_groups_on_their_grid_stay_there(weights: np.ndarray, group: int) -> None:
    once = groupwise(torch.tensor(weights), 4, group)
    assert once.shape == weights.shape and torch.equal(groupwise(once, 4, group), once)
    for start in range(0, weights.shape[1], group):
        before, after = weights[:, start : start + group], once[:, start : start + group].numpy()
        assert all(len(np.unique(row)) <= 16 for row in after)
        most = np.abs(before).max(1, keepdims=True)
        assert (np.abs(after - before) <= most / 8 * 1.0001).all()
        assert (np.abs(after).max(1) == most[:, 0]).all()  # the largest is exact; of two of one size, one is


@given(factor=st.floats(-100, 100).filter(lambda f: abs(f) > 1e-3), weights=WEIGHTS)
def test_a_factor_for_a_channel_moves_no_weight_to_another_level(factor: float, weights: np.ndarray) -> None:
    """Folding a batch norm multiplies a channel, with either sign."""
    once = channelwise(torch.tensor(weights), 8)
    torch.testing.assert_close(channelwise(once * factor, 8), once * factor, rtol=1e-5, atol=1e-30)


def test_the_gradient_is_one_inside_and_zero_outside() -> None:
    x = torch.tensor([-3.0, -1.01, -0.99, 0.2, 1.99, 2.01, 9.0, float("inf"), float("-inf")], requires_grad=True)
    scale, zero = scale_and_zero(torch.tensor(-1.0), torch.tensor(2.0), 8)
    said = fake_quantize(x, scale, zero, 0, 255)
    said.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert said.isfinite().all() and fake_quantize(torch.tensor([float("nan")]), scale, zero, 0, 255).isnan().all()


def test_a_weight_has_a_gradient_of_one_the_largest_too() -> None:
    draw = torch.Generator().manual_seed(0)
    for bits in (2, 3, 8):
        weight = torch.randn(50, 7, generator=draw, requires_grad=True)
        channelwise(weight, bits).sum().backward()
        assert weight.grad is not None and torch.equal(weight.grad, torch.ones_like(weight))


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-39])
def test_channels_of_nothing_stay_nothing(value: float) -> None:
    weight = torch.full((3, 20), value)
    weight[1] = torch.linspace(-1, 1, 20)
    for said in (channelwise(weight, 4), groupwise(weight, 4, 16)):
        assert said.isfinite().all() and (said[[0, 2]] == 0).all() and (said[1] - weight[1]).abs().max() < 0.15


def test_the_gradient_of_a_step_is_the_one_of_the_paper() -> None:
    """Esser et al. 2020, equations 3 and 5, for levels 0..15 of half-lines."""
    x = torch.tensor([[-1.0, 0.3, 0.74, 5.0], [0.1, 0.2, 99.0, 0.0]])
    rounding = Rounding(bits=4, group=0, activations=4, ranges="learned")
    rounding.begin(0.0, 6.0, 0.4)
    step = float(rounding.step.detach())
    assert step == pytest.approx(min(6 / 15, 2 * 0.4 / 15**0.5))
    rounding(x).sum().backward()
    v = x / step
    expected = torch.where(v <= 0, 0.0, torch.where(v >= 15, 15.0, v.round() - v)).sum() / (4 * 15) ** 0.5
    torch.testing.assert_close(rounding.step.grad, expected)


def test_awq_is_never_worse_than_plain_rounding_and_helps_where_channels_stand_out() -> None:
    draw, gains = torch.Generator().manual_seed(0), []
    for _ in range(20):
        weight, rows = torch.randn(64, 200, generator=draw), torch.randn(256, 200, generator=draw)
        rows[:, torch.randperm(200, generator=draw)[:2]] *= 20
        scale, error, plain = best_scale(weight, rows, rows.abs().mean(0), bits=3, group=128)
        said = rows / scale @ groupwise(weight * scale, 3, 128).T
        assert float((said - rows @ weight.T).square().mean()) == pytest.approx(error, rel=1e-3)
        assert error <= plain
        gains.append(1 - error / plain)
    assert sum(gains) / 20 >= 0.3, gains


def test_power_nought_scales_nothing_and_dead_inputs_do_no_harm() -> None:
    size = torch.tensor([0.0, 1e-9, 1.0, 400.0])
    assert torch.equal(scale_of(size, 0.0), torch.ones(4))
    assert scale_of(size, 0.95).isfinite().all() and scale_of(size, 0.95).min() > 0
