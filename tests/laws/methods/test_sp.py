"""Properties of the similarity-preserving loss, whatever the numbers (techniques.md 16)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.methods.sp import sp_loss

seeds = st.integers(0, 2**31)
sizes = st.tuples(st.integers(2, 6), st.integers(2, 5), st.integers(2, 6))


def two(size, seed, dtype=torch.float64):
    images, ours, theirs = size
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(images, width, 2, 2, generator=generator, dtype=dtype) for width in (ours, theirs))


@given(size=sizes, seed=seeds)
def test_zero_at_equality_and_bounded(size, seed):
    student, teacher = two(size, seed)
    assert sp_loss(student, student.clone()) <= 1e-24
    assert 1e-12 < sp_loss(student, teacher) <= 4 / size[0]


@given(size=sizes, seed=seeds, scale=st.floats(1e-2, 1e2))
def test_orthogonal_maps_of_the_features_change_nothing(size, seed, scale):
    """techniques.md 16: invariant to orthogonal feature transforms; and to one scale for all."""
    student, teacher = two(size, seed)
    width = 4 * size[1]
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed)).double()).Q
    turned = student.flatten(1) @ turn * scale
    assert (sp_loss(turned, teacher) - sp_loss(student, teacher)).abs() <= 1e-12
    assert (sp_loss(turned.float(), teacher.float()) - sp_loss(student, teacher)).abs() <= 1e-6


@given(size=sizes, seed=seeds)
def test_the_order_of_images_and_of_places_does_not_matter(size, seed):
    student, teacher = two(size, seed)
    order, places = torch.randperm(size[0]), torch.randperm(4)
    mixed = student[order].flatten(2)[..., places]
    assert torch.isclose(sp_loss(mixed, teacher[order]), sp_loss(student, teacher), rtol=1e-10)


@given(seed=seeds)
@settings(max_examples=5, deadline=None)
def test_gradient(seed):
    student, teacher = two((4, 2, 3), seed)
    assert torch.autograd.gradcheck(lambda s: sp_loss(s, teacher), student.requires_grad_())


@pytest.mark.parametrize("images", [0, 1])
def test_one_image_and_no_image(images):
    student, teacher = torch.randn(images, 3, 2, 2, requires_grad=True), torch.randn(images, 4, 3, 3)
    value = sp_loss(student, teacher)
    value.backward()
    assert value <= 1e-12 and student.grad.abs().sum() <= 1e-5 and student.grad.shape == student.shape


def test_an_image_that_excites_nothing_gives_no_infinite_gradient():
    student, teacher = two((5, 3, 4), 0, torch.float32)
    student[2] = 0
    student.requires_grad_()
    sp_loss(student, teacher).backward()
    assert student.grad.isfinite().all() and 0 < student.grad.abs().max() < 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher = two((8, 6, 7), 0, torch.float32)
    assert sp_loss(student.to(dtype) * 1000, teacher.to(dtype) * 1000).isfinite()
    near, exact = sp_loss(student.to(dtype), teacher.to(dtype)), sp_loss(student, teacher)
    assert near.item() == pytest.approx(exact.item(), rel=0.02) and near.dtype == torch.float32
    with torch.autocast("cpu", dtype):
        assert sp_loss(student, teacher).item() == pytest.approx(exact.item(), rel=1e-5)
