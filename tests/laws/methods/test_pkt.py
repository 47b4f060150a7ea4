"""Properties of probabilistic knowledge transfer, whatever the numbers (techniques.md 23)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.methods.pkt import _neighbours, pkt_loss

seeds = st.integers(0, 2**31)
sizes = st.tuples(st.integers(2, 7), st.integers(2, 5), st.integers(2, 6))


def two(size, seed, dtype=torch.float64):
    images, ours, theirs = size
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(images, width, generator=generator, dtype=dtype) for width in (ours, theirs))


@given(size=sizes, seed=seeds)
def test_zero_at_equality_and_never_below(size, seed):
    student, teacher = two(size, seed)
    assert pkt_loss(student, student.clone()).abs() <= 1e-15
    assert pkt_loss(student, teacher) >= 0
    assert pkt_loss(student, teacher) > 1e-9 or size[0] == 2


@given(size=sizes, seed=seeds)
def test_neighbours_are_distributions(size, seed):
    student, _ = two(size, seed)
    p = _neighbours(student)
    torch.testing.assert_close(p.sum(1), torch.ones(size[0], dtype=torch.float64))
    assert p.min() > 0 and torch.equal(p.argmax(1), torch.arange(size[0]))


@given(size=sizes, seed=seeds)
def test_turning_and_scaling_each_vector_changes_nothing(size, seed):
    student, teacher = two(size, seed)
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(size[1], size[1], generator=generator, dtype=torch.float64)).Q
    scaled = student @ turn * (0.1 + 10 * torch.rand(size[0], 1, generator=generator, dtype=torch.float64))
    assert (pkt_loss(scaled, teacher) - pkt_loss(student, teacher)).abs() <= 1e-13


@given(size=sizes, seed=seeds)
def test_the_order_of_the_images_does_not_matter(size, seed):
    student, teacher = two(size, seed)
    order = torch.randperm(size[0])
    assert torch.isclose(pkt_loss(student[order], teacher[order]), pkt_loss(student, teacher), rtol=1e-9, atol=1e-15)


@given(seed=seeds)
@settings(max_examples=5, deadline=None)
def test_gradient(seed):
    student, teacher = two((4, 3, 5), seed)
    assert torch.autograd.gradcheck(lambda s: pkt_loss(s, teacher), student.requires_grad_())


@pytest.mark.parametrize("images", [0, 1])
def test_one_image_and_no_image(images):
    student, teacher = torch.randn(images, 3, requires_grad=True), torch.randn(images, 4)
    value = pkt_loss(student, teacher)
    value.backward()
    assert value.abs() <= 1e-12 and student.grad.abs().sum() <= 1e-6 and student.grad.shape == student.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opposite_and_missing_vectors_have_finite_gradients(dtype):
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype=dtype, requires_grad=True)
    value = pkt_loss(student, torch.randn(4, 3, dtype=dtype))
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all() and torch.equal(student.grad[2], torch.zeros(2).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher = two((8, 6, 7), 0, torch.float32)
    assert pkt_loss(student.to(dtype) * 1000, teacher.to(dtype) * 1000).isfinite()
    near, exact = pkt_loss(student.to(dtype), teacher.to(dtype)), pkt_loss(student, teacher)
    assert near.item() == pytest.approx(exact.item(), rel=0.02) and near.dtype == torch.float32
    with torch.autocast("cpu", dtype):
        assert pkt_loss(student, teacher).item() == pytest.approx(exact.item(), rel=1e-4)
