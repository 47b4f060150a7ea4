"""Properties of hard distillation, whatever the numbers (techniques.md 1 and 25)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillroom.methods.hard import Hard, hard_loss
from stillroom.types import Batch, Output

shapes = st.tuples(st.integers(1, 6), st.integers(2, 9))
seeds = st.integers(0, 2**31)


def two(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=dtype) * 3 for _ in range(2))


def charged(method, student, teacher):
    batch = Batch(images=torch.zeros(len(student), 1, 2, 2), target=None, keys=torch.arange(len(student)))
    return method.loss(Output(pred=student), Output(pred=teacher), batch, 0.5)["ce"]


@given(shapes, seeds)
def test_never_below_the_surest_choice_and_equal_to_it_at_equality(shape, seed):
    """-log max softmax(student) is the least that any labels could cost."""
    student, teacher = two(shape, seed)
    least = -student.log_softmax(1).amax(1).mean()
    assert hard_loss(student, teacher) >= least - 1e-12
    assert torch.isclose(hard_loss(student, student), least, rtol=1e-12)


@given(shapes, seeds)
def test_nears_zero_where_the_student_is_sure_of_the_same(shape, seed):
    _, teacher = two(shape, seed)
    student = 1e3 * torch.nn.functional.one_hot(teacher.argmax(1), shape[1]).double()
    assert hard_loss(student, teacher) == pytest.approx(0, abs=1e-12)


@given(shapes, seeds, st.floats(0.1, 20), st.floats(-50, 50))
def test_only_the_teacher_s_choice_counts(shape, seed, scale, shift):
    student, teacher = two(shape, seed)
    assert hard_loss(student, teacher * scale + shift) == hard_loss(student, teacher)
    assert hard_loss(student, teacher**3) == hard_loss(student, teacher)


@given(shapes, seeds, st.floats(-50, 50))
def test_adding_a_constant_to_a_student_s_image_changes_nothing(shape, seed, constant):
    student, teacher = two(shape, seed)
    assert torch.isclose(hard_loss(student + constant, teacher), hard_loss(student, teacher), rtol=1e-9, atol=1e-10)


@given(seeds)
def test_per_pixel_is_the_mean_over_pixels(seed):
    student, teacher = two((2, 5, 3, 4), seed)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    assert torch.isclose(hard_loss(student, teacher), hard_loss(*flat), rtol=1e-9)
    assert torch.isclose(charged(Hard(), student, teacher), hard_loss(*flat), rtol=1e-9)


@given(shapes, seeds)
def test_gradient_is_the_formula_s(shape, seed):
    """d/dz_s = (softmax(z_s) - the teacher's choice) / B."""
    student, teacher = two(shape, seed)
    (grad,) = torch.autograd.grad(hard_loss(student.requires_grad_(), teacher), student)
    chosen = torch.nn.functional.one_hot(teacher.argmax(1), shape[1])
    assert torch.allclose(grad, (student.softmax(1) - chosen) / shape[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("standardised", [False, True])
def test_gradcheck(standardised):
    student, teacher = two((3, 4), 0)
    method = Hard(standardised=standardised)
    assert torch.autograd.gradcheck(lambda z: charged(method, z, teacher), student.requires_grad_())


@given(seeds, st.floats(0.1, 10), st.floats(-5, 5))
def test_standardised_ignores_the_student_s_scale(seed, scale, shift):
    """techniques.md 11."""
    student, teacher = two((4, 8), seed)
    method = Hard(standardised=True)
    moved = charged(method, student * scale + shift, teacher)
    assert torch.isclose(moved, charged(method, student, teacher), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher = two((4, 10), 0, torch.float32)
    assert charged(Hard(), (student * 1000).to(dtype), (teacher * 1000).to(dtype)).isfinite()
    near = charged(Hard(), student.to(dtype), teacher.to(dtype))
    assert near == pytest.approx(charged(Hard(), student, teacher).item(), rel=0.02)


def test_one_image_and_no_image():
    assert charged(Hard(), torch.randn(1, 3), torch.randn(1, 3)).isfinite()
    none = torch.randn(0, 3, requires_grad=True)
    loss = charged(Hard(), none, torch.randn(0, 3))
    loss.backward()
    assert loss == 0 and none.grad.shape == (0, 3)


def test_the_authors_weight():
    """techniques.md 25: alpha = 0.5."""
    assert Hard.weight == 0.5
