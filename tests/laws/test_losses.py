"""Properties that hold for every response loss, whatever the numbers. A wrong reduction or a lost factor breaks one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.methods.fitnet import hint_loss
from stillroom.methods.hinton import hinton_loss, standardise

temperatures = st.floats(0.5, 20)
shapes = st.tuples(st.integers(1, 6), st.integers(2, 9))
seeds = st.integers(0, 2**31)


def two(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=dtype) * 3 for _ in range(2))


@given(shapes, seeds, temperatures)
def test_zero_at_equality_and_never_below(shape, seed, temperature):
    student, teacher = two(shape, seed)
    assert abs(hinton_loss(student, student, temperature)) <= 1e-6 * temperature**2
    assert hinton_loss(student, teacher, temperature) >= -1e-6 * temperature**2


@given(shapes, seeds, temperatures, st.floats(-50, 50))
def test_adding_a_constant_to_an_image_changes_nothing(shape, seed, temperature, constant):
    student, teacher = two(shape, seed)
    moved = hinton_loss(student + constant, teacher - constant, temperature)
    assert torch.isclose(moved, hinton_loss(student, teacher, temperature), rtol=1e-3, atol=1e-4)


@given(shapes, seeds, st.floats(0.5, 4), st.integers(1, 20))
def test_classes_nobody_believes_in_change_nothing(shape, seed, temperature, more):
    student, teacher = two(shape, seed)
    nobody = torch.full((shape[0], more), -1e4, dtype=torch.float64)
    wider = hinton_loss(torch.cat([student, nobody], 1), torch.cat([teacher, nobody], 1), temperature)
    assert torch.isclose(wider, hinton_loss(student, teacher, temperature), rtol=1e-4, atol=1e-5)


@given(shapes, seeds, temperatures)
def test_a_batch_twice_costs_the_same(shape, seed, temperature):
    student, teacher = two(shape, seed)
    twice = hinton_loss(torch.cat([student] * 2), torch.cat([teacher] * 2), temperature)
    assert torch.isclose(twice, hinton_loss(student, teacher, temperature), rtol=1e-4, atol=1e-6)


@given(shapes, seeds, temperatures)
def test_order_of_classes_and_images_does_not_matter(shape, seed, temperature):
    student, teacher = two(shape, seed)
    rows, columns = torch.randperm(shape[0]), torch.randperm(shape[1])
    mixed = hinton_loss(student[rows][:, columns], teacher[rows][:, columns], temperature)
    assert torch.isclose(mixed, hinton_loss(student, teacher, temperature), rtol=1e-4, atol=1e-6)


@given(seeds, temperatures)
@settings(max_examples=20)
def test_per_pixel_is_the_mean_over_pixels(seed, temperature):
    student, teacher = two((2, 5, 3, 4), seed)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    expected = hinton_loss(*flat, temperature)
    assert torch.isclose(hinton_loss(student, teacher, temperature), expected, rtol=1e-5)


@given(shapes, seeds, temperatures)
@settings(max_examples=20)
def test_gradient_is_the_formula_s(shape, seed, temperature):
    """d/dz_s of T^2 KL = T (softmax(z_s / T) - softmax(z_t / T)) / B."""
    student, teacher = two(shape, seed)
    student.requires_grad_()
    (grad,) = torch.autograd.grad(hinton_loss(student, teacher, temperature), student)
    expected = temperature * ((student / temperature).softmax(1) - (teacher / temperature).softmax(1)) / shape[0]
    assert torch.allclose(grad, expected, rtol=1e-3, atol=1e-5 * temperature)


def test_large_temperature_gives_the_centred_difference():
    """techniques.md 1.2: the gradient tends to (z_s - z_t) / K of centred logits; largest deviation by temperature."""
    teacher, student = torch.tensor([[3.7, 1.3, 0.0]]), torch.tensor([[1.0, 2.0, 0.5]], requires_grad=True)
    centred = [z - z.mean() for z in (student.detach(), teacher)]
    wanted = (centred[0] - centred[1]) / 3
    found = []
    for temperature in (1.0, 10.0, 100.0):
        (grad,) = torch.autograd.grad(hinton_loss(student, teacher, temperature), student)
        found.append((grad - wanted).abs().max().item())
    assert found[0] == pytest.approx(0.215, abs=5e-3)
    assert found[1] == pytest.approx(0.041, abs=5e-3)
    assert found[2] <= 0.005


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher = two((4, 10), 0, torch.float32)
    half = hinton_loss(student.to(dtype) * 100, teacher.to(dtype) * 100, 4.0)
    assert math.isfinite(half)
    near = hinton_loss(student.to(dtype), teacher.to(dtype), 4.0)
    assert near == pytest.approx(hinton_loss(student, teacher, 4.0).item(), rel=0.02)


def test_one_image_and_no_image():
    one = torch.randn(1, 3, requires_grad=True)
    assert hinton_loss(one, torch.randn(1, 3), 4.0).isfinite()
    none = torch.randn(0, 3, requires_grad=True)
    loss = hinton_loss(none, torch.randn(0, 3), 4.0)
    loss.backward()
    assert loss == 0 and none.grad.shape == (0, 3)


@given(shapes, seeds, st.floats(0.1, 10), st.floats(-10, 10))
def test_standardised_logits_ignore_scale_and_shift(shape, seed, scale, shift):
    logits, _ = two(shape, seed)
    if logits.std(1).min() > 1e-2:
        assert torch.allclose(standardise(logits * scale + shift), standardise(logits), atol=1e-3)


def test_standardised_constant_row_is_zeros():
    assert torch.equal(standardise(torch.full((2, 5), 3.0)), torch.zeros(2, 5))


@given(seeds, st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=20)
def test_hint_zero_at_equality_and_equal_to_the_mean_square(seed, channels, side):
    student, teacher = two((2, channels, side, side), seed, torch.float32)
    assert hint_loss(student, student) == 0
    assert torch.isclose(hint_loss(student, teacher), (student - teacher).square().mean())
