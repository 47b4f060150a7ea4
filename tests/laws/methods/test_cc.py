"""Properties of correlation congruence, whatever the numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.methods.cc import CC, _kernel, cc_loss
from stillroom.types import Batch, Output

seeds = st.integers(0, 2**31)
sizes = st.tuples(st.integers(2, 7), st.integers(2, 5), st.integers(2, 6))


def two(size, seed, dtype=torch.float64):
    images, ours, theirs = size
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(images, width, generator=generator, dtype=dtype) for width in (ours, theirs))


@given(size=sizes, seed=seeds, order=st.integers(1, 4))
def test_zero_at_equality_and_above_elsewhere(size, seed, order):
    student, teacher = two(size, seed)
    assert cc_loss(student, student.clone(), order=order) <= 1e-28
    assert cc_loss(student, teacher, order=order) > 1e-12


@given(size=sizes, seed=seeds)
def test_turning_and_scaling_each_vector_changes_nothing(size, seed):
    student, teacher = two(size, seed)
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(size[1], size[1], generator=generator, dtype=torch.float64)).Q
    scaled = student @ turn * (0.1 + 10 * torch.rand(size[0], 1, generator=generator, dtype=torch.float64))
    assert (cc_loss(scaled, teacher) - cc_loss(student, teacher)).abs() <= 1e-13


@given(size=sizes, seed=seeds, gamma=st.floats(0.1, 2))
def test_the_series_tends_to_the_gaussian_kernel(size, seed, gamma):
    """exp(-gamma |x - y|^2) of unit vectors; what is left out is below the next power's part, e^2g."""
    student, _ = two(size, seed)
    unit = student / student.norm(dim=1, keepdim=True)
    gauss = torch.exp(-gamma * (unit[:, None] - unit[None]).square().sum(2))
    assert (_kernel(student, gamma, 25) - gauss).abs().max() <= 1e-9
    left_out = (2 * gamma) ** 3 / math.factorial(3)  # times e^-2g times the rest of the series, at most e^2g
    assert (_kernel(student, gamma, 2) - gauss).abs().max() <= left_out


@given(seed=seeds)
@settings(max_examples=5, deadline=None)
def test_gradient(seed):
    student, teacher = two((4, 3, 5), seed)
    assert torch.autograd.gradcheck(lambda s: cc_loss(s, teacher), student.requires_grad_())


@pytest.mark.parametrize("images", [0, 1])
def test_one_image_and_no_image(images):
    student, teacher = torch.randn(images, 3, requires_grad=True), torch.randn(images, 4)
    value = cc_loss(student, teacher)
    value.backward()
    assert value.abs() <= 1e-12 and student.grad.abs().sum() <= 1e-5 and student.grad.shape == student.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher = two((8, 6, 7), 0, torch.float32)
    assert cc_loss(student.to(dtype) * 1000, teacher.to(dtype) * 1000).isfinite()
    near, exact = cc_loss(student.to(dtype), teacher.to(dtype)), cc_loss(student, teacher)
    assert near.item() == pytest.approx(exact.item(), rel=0.02) and near.dtype == torch.float32
    with torch.autocast("cpu", dtype):
        assert cc_loss(student, teacher).item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("images", [1, 4])
def test_every_parameter_gets_a_gradient(images):
    student, teacher = two((images, 3, 5), 0, torch.float32)
    seen, heard = Output(pred=student, taps={"a": student}), Output(pred=teacher, taps={"b": teacher})
    method = CC(student_taps=("a",), teacher_taps=("b",))
    method.setup(seen, heard)
    batch = Batch(images=torch.zeros(images, 1, 1, 1), target=None, keys=torch.arange(images))
    method.loss(seen, heard, batch, 0.0)["kernel"].backward()
    found = [p.grad for p in method.parameters()]
    assert len(found) == 2 and all(grad is not None for grad in found)
    assert (found[0].abs().sum() > 1e-6) == (images > 1)


def test_arguments():
    with pytest.raises(ValueError, match="gamma must be above 0, got 0"):
        CC(gamma=0)
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        CC(order=0)
