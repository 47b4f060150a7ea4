"""Properties of NKD, whatever the numbers (techniques.md 10)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import StillroomError
from stillroom.methods.nkd import NKD, nkd_loss
from stillroom.types import Batch, Output

shapes = st.tuples(st.integers(1, 6), st.integers(3, 9))
temperatures = st.floats(0.5, 20)
seeds = st.integers(0, 2**31)


def drawn(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=dtype) * 3 for _ in range(2))
    return student, teacher, torch.randint(shape[1], (shape[0],), generator=generator)


def charged(method, student, teacher, target):
    batch = Batch(images=torch.zeros(len(student), 1, 2, 2), target=target, keys=torch.arange(len(student)))
    return method.loss(Output(pred=student), Output(pred=teacher), batch, 0.5)


@given(shapes, seeds, temperatures)
def test_the_second_part_is_least_at_equality_and_never_below_zero(shape, seed, temperature):
    student, teacher, target = drawn(shape, seed)
    first, second = nkd_loss(student, teacher, target, gamma=1.5, temperature=temperature)
    _, least = nkd_loss(teacher, teacher, target, gamma=1.5, temperature=temperature)
    assert first >= 0 and 0 <= least < second


@given(shapes, seeds)
@settings(max_examples=20)
def test_at_equality_the_second_part_has_no_gradient(shape, seed):
    _, teacher, target = drawn(shape, seed)
    student = teacher.clone().requires_grad_()
    nkd_loss(student, teacher, target, gamma=1.0, temperature=2.0)[1].backward()
    assert student.grad.abs().max() <= 1e-14


@given(shapes, seeds)
@settings(max_examples=20)
def test_the_true_logit_does_not_matter_to_the_second_part(shape, seed):
    student, teacher, target = drawn(shape, seed)
    moved = student.scatter_add(1, target[:, None], torch.full_like(target[:, None], 5, dtype=student.dtype))
    a, b = (nkd_loss(s, teacher, target, gamma=1.5, temperature=2.0) for s in (student, moved))
    assert torch.equal(a[1], b[1]) and b[0] < a[0]


@given(shapes, seeds, temperatures, st.floats(-50, 50))
def test_shifts_and_orders_change_nothing(shape, seed, temperature, constant):
    student, teacher, target = drawn(shape, seed)
    rows, classes = torch.randperm(shape[0]), torch.randperm(shape[1])
    mixed = (x[rows][:, classes] + constant for x in (student, teacher))
    moved = nkd_loss(*mixed, classes.argsort()[target[rows]], gamma=1.5, temperature=temperature)
    for a, b in zip(moved, nkd_loss(student, teacher, target, gamma=1.5, temperature=temperature), strict=True):
        assert torch.isclose(a, b, rtol=1e-8, atol=1e-10)


def test_per_pixel_is_the_mean_over_pixels_and_unlabelled_ones_are_left_out():
    student, teacher, _ = drawn((2, 5, 3, 4), 0)
    target = torch.randint(-1, 5, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5)[target.flatten() >= 0] for x in (student, teacher)]
    expected = nkd_loss(*flat, target[target >= 0], gamma=1.5, temperature=1.0)
    found = charged(NKD(), student, teacher, target).values()
    assert all(torch.isclose(a, b, rtol=1e-12) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher, target = drawn((8, 10), 0, torch.float32)
    big = (student.to(dtype) * 5000).requires_grad_()
    total = sum(nkd_loss(big, teacher.to(dtype) * 5000, target, gamma=1.5, temperature=1.0))
    total.backward()
    assert total.isfinite() and big.grad.isfinite().all()
    near = sum(nkd_loss(student.to(dtype), teacher.to(dtype), target, gamma=1.5, temperature=1.0))
    exact = sum(nkd_loss(student, teacher, target, gamma=1.5, temperature=1.0))
    assert near.item() == pytest.approx(exact.item(), rel=0.02)


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_gradient(seed):
    student, teacher, target = drawn((3, 4), seed)
    assert torch.autograd.gradcheck(
        lambda s: sum(nkd_loss(s, teacher, target, gamma=1.5, temperature=2.0)), student.requires_grad_()
    )


def test_one_image_no_image_and_two_classes():
    for images in (1, 0):
        student = torch.randn(images, 4, requires_grad=True)
        terms = charged(NKD(), student, torch.randn(images, 4), torch.zeros(images, dtype=torch.long))
        sum(terms.values()).backward()
        assert all(value.isfinite() for value in terms.values()) and student.grad.shape == (images, 4)
        assert images or not any(terms.values())
    assert list(charged(NKD(), torch.randn(3, 2), torch.randn(3, 2), torch.tensor([0, 1, 1]))) == ["target"]


def test_standardised_ignores_scale_and_shift():
    student, teacher, target = drawn((6, 5), 0)
    method = NKD(standardised=True)
    a, b = charged(method, student, teacher, target), charged(method, 7 * student + 3, teacher / 5 - 2, target)
    assert all(torch.isclose(a[name], b[name], rtol=1e-5) for name in a)


def test_bad_values_are_named():
    for name, value in {"gamma": -1.0, "temperature": 0.0}.items():
        with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
            NKD(**{name: value})
    with pytest.raises(StillroomError, match="SR-M332"):
        charged(NKD(), torch.randn(3, 4), torch.randn(3, 4), {"boxes": torch.rand(3)})
