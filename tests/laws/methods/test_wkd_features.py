"""What must hold of WKD-F, whatever the numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.methods.wkd_features import WKDFeatures, moments, wkd_features_loss
from stillroom.types import Batch, Output

seeds = st.integers(0, 2**31)
laws = settings(deadline=None, max_examples=50)
grids = st.integers(1, 4)


def two(seed, shape=(2, 3, 5, 4), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=dtype) * 3 for _ in range(2))


@laws
@given(seeds, grids, st.floats(0, 9))
def test_zero_at_equality_and_never_below(seed, grid, ratio):
    student, teacher = two(seed)
    assert wkd_features_loss(student, student.clone(), ratio, grid) == 0
    assert wkd_features_loss(student, teacher, ratio, grid) > 0


@laws
@given(seeds)
def test_places_may_be_shuffled(seed):
    student, teacher = two(seed)
    mixed = student.flatten(2)[:, :, torch.randperm(20)].view_as(student)
    expected = wkd_features_loss(student, teacher, 4.0)
    assert torch.isclose(wkd_features_loss(mixed, teacher, 4.0), expected, rtol=1e-9)


@laws
@given(seeds, st.floats(-5, 5), st.floats(0, 9))
def test_a_shift_costs_its_square_times_the_ratio(seed, shift, ratio):
    student, _ = two(seed)
    found = wkd_features_loss(student + shift, student, ratio, 2)
    assert found.item() == pytest.approx(3 * ratio * shift**2, rel=1e-6, abs=1e-9)


def test_a_spread_costs_the_square_of_the_deviations_difference():
    """Deviations 1 and 3 (but for the 1e-5) in four channels: 4 x 2^2, whatever the ratio."""
    row = torch.tensor([-1.0, 1.0], dtype=torch.float64) / 2**0.5
    student = row.expand(1, 4, 1, 2)
    assert wkd_features_loss(student, student * 3, 7.0).item() == pytest.approx(16, abs=1e-3)


@laws
@given(seeds, grids)
def test_maps_of_other_sizes_are_welcome(seed, grid):
    """Every place repeated in a 2x2 block: equal means, and var (n - 1) = var_larger (4n - 1) / 4, n = 4."""
    student, teacher = two(seed, (2, 3, 4, 4))
    larger = teacher.repeat_interleave(2, 2).repeat_interleave(2, 3)
    (mean, std), (mean_larger, std_larger) = moments(teacher, 2), moments(larger, 2)
    assert torch.allclose(mean_larger, mean, atol=1e-12)
    assert torch.allclose((std_larger**2 - 1e-5) * 15 / 4, (std**2 - 1e-5) * 3, atol=1e-9)
    assert wkd_features_loss(student, larger, 1.0, grid).isfinite()


def test_a_map_of_one_place_has_means_and_no_deviation():
    student = torch.randn(3, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, 1, 1, dtype=torch.float64)
    loss = wkd_features_loss(student, teacher, 1.0)
    assert torch.isclose(loss, (student - teacher).square().sum((1, 2, 3)).mean())
    (grad,) = torch.autograd.grad(loss, student)
    assert grad.isfinite().all()


def test_a_constant_map_has_a_finite_gradient():
    student = torch.ones(1, 2, 3, 3, requires_grad=True)
    wkd_features_loss(student, torch.randn(1, 2, 3, 3)).backward()
    assert student.grad.isfinite().all()


@settings(deadline=None, max_examples=5)
@given(seeds, st.integers(1, 2))
def test_gradcheck(seed, grid):
    student, teacher = two(seed, (2, 2, 3, 3))
    assert torch.autograd.gradcheck(lambda x: wkd_features_loss(x, teacher, 4.0, grid), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher = two(0, dtype=torch.float32)
    assert wkd_features_loss(student.to(dtype) * 1000, teacher.to(dtype) * 1000).isfinite()
    near = wkd_features_loss(student.to(dtype), teacher.to(dtype))
    assert near.dtype == torch.float32
    assert near == pytest.approx(wkd_features_loss(student, teacher).item(), rel=0.02)


def test_no_image():
    none = torch.randn(0, 3, 2, 2, requires_grad=True)
    loss = wkd_features_loss(none, torch.randn(0, 3, 2, 2))
    loss.backward()
    assert loss == 0 and none.grad.shape == (0, 3, 2, 2)


def test_every_parameter_learns_from_maps_tokens_and_vectors():
    torch.manual_seed(0)
    method = WKDFeatures(student_taps=("a", "b"), teacher_taps=("c", "d"))
    student = Output(pred=torch.zeros(2, 5), taps={"a": torch.randn(2, 3, 4, 4), "b": torch.randn(2, 7)})
    teacher = Output(pred=torch.zeros(2, 5), taps={"c": torch.randn(2, 10, 6), "d": torch.randn(2, 5, 2, 2)})
    method.setup(student, teacher)
    batch = Batch(images=torch.zeros(2, 1, 2, 2), target=torch.zeros(2), keys=torch.arange(2))
    terms = method.loss(method.project(student), teacher, batch, 0.0)
    terms["wasserstein"].backward()
    assert all(p.grad.abs().sum() > 0 for p in method.parameters()) and len(list(method.parameters())) == 4


@pytest.mark.parametrize("bad", [{"ratio": -1.0}, {"ratio": float("nan")}, {"grid": 0}])
def test_refuses_bad_arguments(bad):
    ((name, value),) = bad.items()
    with pytest.raises(ValueError, match=f"{name} must be .* got {value}"):
        WKDFeatures(**bad)
