"""Properties of Hinton's loss and of standardised logits, whatever the numbers (techniques.md 1 and 11)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stillroom.methods._logits import standardise
from stillroom.methods.hinton import Hinton, hinton_loss
from stillroom.types import Batch, Output

temperatures = st.floats(0.5, 20)
shapes = st.tuples(st.integers(1, 6), st.integers(2, 9))
seeds = st.integers(0, 2**31)


def two(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=dtype) * 3 for _ in range(2))


def charged(method, student, teacher, progress=0.5):
    batch = Batch(images=torch.zeros(len(student), 1, 2, 2), target=None, keys=torch.arange(len(student)))
    (term,) = method.loss(Output(pred=student), Output(pred=teacher), batch, progress).values()
    return term


@given(shapes, seeds, temperatures)
def test_zero_at_equality_and_never_below(shape, seed, temperature):
    """techniques.md 1.1: KL(p || p) = 0 to 1e-7, KL >= 0."""
    student, teacher = two(shape, seed)
    assert abs(hinton_loss(student, student, temperature)) <= 1e-7
    assert hinton_loss(student, teacher, temperature) >= -1e-12 * temperature**2


@given(shapes, seeds)
def test_cross_entropy_less_entropy(shape, seed):
    """techniques.md 1.1: KL = CE(p, q) - H(p) to 1e-6."""
    student, teacher = two(shape, seed)
    p = teacher.softmax(1)
    cross, entropy = -(p * student.log_softmax(1)).sum(1).mean(), -(p * p.log()).sum(1).mean()
    assert torch.isclose(hinton_loss(student, teacher, 1.0), cross - entropy, rtol=0, atol=1e-6)


@given(shapes, seeds, temperatures, st.floats(-50, 50))
def test_adding_a_constant_to_an_image_changes_nothing(shape, seed, temperature, constant):
    student, teacher = two(shape, seed)
    moved = hinton_loss(student + constant, teacher - constant, temperature)
    assert torch.isclose(moved, hinton_loss(student, teacher, temperature), rtol=1e-9, atol=1e-10)


@given(shapes, seeds, st.floats(0.5, 4), st.integers(1, 20))
def test_classes_nobody_believes_in_change_nothing(shape, seed, temperature, more):
    student, teacher = two(shape, seed)
    nobody = torch.full((shape[0], more), -1e4, dtype=torch.float64)
    wider = hinton_loss(torch.cat([student, nobody], 1), torch.cat([teacher, nobody], 1), temperature)
    assert torch.isclose(wider, hinton_loss(student, teacher, temperature), rtol=1e-9, atol=1e-10)


@given(shapes, seeds, temperatures)
def test_a_batch_twice_costs_the_same(shape, seed, temperature):
    student, teacher = two(shape, seed)
    twice = hinton_loss(torch.cat([student] * 2), torch.cat([teacher] * 2), temperature)
    assert torch.isclose(twice, hinton_loss(student, teacher, temperature), rtol=1e-9, atol=1e-10)


@given(shapes, seeds, temperatures)
def test_order_of_classes_and_images_does_not_matter(shape, seed, temperature):
    student, teacher = two(shape, seed)
    rows, columns = torch.randperm(shape[0]), torch.randperm(shape[1])
    mixed = hinton_loss(student[rows][:, columns], teacher[rows][:, columns], temperature)
    assert torch.isclose(mixed, hinton_loss(student, teacher, temperature), rtol=1e-9, atol=1e-10)


@given(seeds, temperatures)
@settings(max_examples=20)
def test_per_pixel_is_the_mean_over_pixels(seed, temperature):
    student, teacher = two((2, 5, 3, 4), seed)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    expected = hinton_loss(*flat, temperature)
    assert torch.isclose(hinton_loss(student, teacher, temperature), expected, rtol=1e-9)
    assert torch.isclose(charged(Hinton(temperature=temperature), student, teacher), expected, rtol=1e-9)


@given(shapes, seeds)
@settings(max_examples=20)
def test_a_temperature_a_row_is_the_mean_of_rows(shape, seed):
    """[M, 1]: every row with its own T and its own T^2."""
    student, teacher = two(shape, seed)
    heat = 0.5 + 10 * torch.rand(shape[0], 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    alone = [hinton_loss(student[m : m + 1], teacher[m : m + 1], heat[m].item()) for m in range(shape[0])]
    assert torch.isclose(hinton_loss(student, teacher, heat), torch.stack(alone).mean(), rtol=1e-9, atol=1e-12)


@given(shapes, seeds, temperatures)
@settings(max_examples=20)
def test_gradient_is_the_formula_s(shape, seed, temperature):
    """d/dz_s of T^2 KL = T (softmax(z_s / T) - softmax(z_t / T)) / B."""
    student, teacher = two(shape, seed)
    student.requires_grad_()
    (grad,) = torch.autograd.grad(hinton_loss(student, teacher, temperature), student)
    expected = temperature * ((student / temperature).softmax(1) - (teacher / temperature).softmax(1)) / shape[0]
    assert torch.allclose(grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("heat", [4.0, torch.tensor([[1.0], [4.0], [9.0]], dtype=torch.float64)])
def test_gradcheck(heat):
    student, teacher = two((3, 4), 0)
    assert torch.autograd.gradcheck(lambda z: hinton_loss(z, teacher, heat), student.requires_grad_())


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
@pytest.mark.parametrize("method", [Hinton(), Hinton(standardised=True)])
def test_half_precision_stays_finite_and_near(dtype, method):
    student, teacher = two((4, 10), 0, torch.float32)
    assert math.isfinite(charged(method, student.to(dtype) * 100, teacher.to(dtype) * 100))
    near = charged(method, student.to(dtype), teacher.to(dtype))
    assert near == pytest.approx(charged(method, student, teacher).item(), rel=0.02)


def test_double_precision_stays_double():
    student, teacher = two((4, 10), 0)
    assert charged(Hinton(standardised=True), student, teacher).dtype == torch.float64


def test_one_image_and_no_image():
    one = torch.randn(1, 3, requires_grad=True)
    for standardised in (False, True):
        assert charged(Hinton(standardised=standardised), one, torch.randn(1, 3)).isfinite()
    none = torch.randn(0, 3, requires_grad=True)
    loss = charged(Hinton(), none, torch.randn(0, 3))
    loss.backward()
    assert loss == 0 and none.grad.shape == (0, 3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature must be above 0 and finite, got {temperature}"):
        Hinton(temperature=temperature)


def test_the_authors_weight():
    """techniques.md 1: temperature 4 and weight 0.9."""
    assert (Hinton().temperature, Hinton.weight) == (4.0, 0.9)


@given(shapes, seeds, st.floats(0.5, 10), st.floats(-3, 3), st.sampled_from([torch.float32, torch.float64]))
def test_standardised_logits_ignore_scale_and_shift(shape, seed, scale, shift, dtype):
    """techniques.md 11: z -> a z + b, a > 0, changes nothing, to 1e-5."""
    logits, _ = two(shape, seed, dtype)
    assume(logits.std(1).min() > 0.5)
    assert torch.allclose(standardise(logits * scale + shift), standardise(logits), rtol=0, atol=1e-5)


@given(seeds, st.floats(0.1, 10), st.floats(-5, 5))
def test_standardised_loss_ignores_either_network_s_scale(seed, scale, shift):
    """techniques.md 11, through the method: as a step before this loss."""
    student, teacher = two((4, 8), seed)
    method = Hinton(temperature=2.0, standardised=True)
    plain = charged(method, student, teacher)
    assert torch.isclose(charged(method, student * scale + shift, teacher), plain, rtol=1e-5, atol=1e-7)
    assert torch.isclose(charged(method, student, teacher * scale + shift), plain, rtol=1e-5, atol=1e-7)
    assert charged(method, scale * teacher + shift, teacher) == pytest.approx(0, abs=1e-10)


def test_standardised_equal_logits_are_zeros_and_finite_to_learn_from():
    """techniques.md 11: a row of equal logits."""
    assert torch.equal(standardise(torch.full((2, 5), 3.0)), torch.zeros(2, 5))
    student = torch.full((2, 5), 3.0, requires_grad=True)
    loss = charged(Hinton(standardised=True), student, torch.randn(2, 5))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()
