"""Properties of the distillation head's loss, whatever the numbers (techniques.md 25)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import StillroomError
from stillroom.methods.deit import DeiT, deit_loss
from stillroom.types import Output

shapes = st.tuples(st.integers(1, 6), st.integers(2, 9))
seeds = st.integers(0, 2**31)


def two(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=dtype) * 3 for _ in range(2))


@given(shapes, seeds, st.floats(0.5, 20))
def test_never_below_zero_and_soft_is_zero_at_equality(shape, seed, temperature):
    student, teacher = two(shape, seed)
    assert deit_loss(student, teacher, "hard") >= 0
    assert deit_loss(student, teacher, "soft", temperature) >= -1e-12
    assert abs(deit_loss(student, student, "soft", temperature)) <= 1e-12


@given(shapes, seeds, st.floats(0.1, 10), st.floats(-5, 5))
def test_hard_sees_only_the_teachers_choice(shape, seed, scale, shift):
    student, teacher = two(shape, seed)
    assert torch.equal(deit_loss(student, teacher * scale + shift, "hard"), deit_loss(student, teacher, "hard"))
    sure = torch.nn.functional.one_hot(teacher.argmax(1), shape[1]) * 100.0
    assert deit_loss(sure, teacher, "hard") <= 1e-12


@pytest.mark.parametrize("kind", ["hard", "soft"])
@given(seed=seeds)
@settings(max_examples=5, deadline=None)
def test_gradient(kind, seed):
    student, teacher = two((3, 4), seed)
    assert torch.autograd.gradcheck(lambda s: deit_loss(s, teacher, kind), student.requires_grad_())


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_one_image_and_none(kind, dtype):
    student, teacher = two((4, 10), 0, torch.float32)
    assert deit_loss(student.to(dtype) * 100, teacher.to(dtype) * 100, kind).isfinite()
    near = deit_loss(student.to(dtype), teacher.to(dtype), kind)
    assert near.item() == pytest.approx(deit_loss(student, teacher, kind).item(), rel=0.02)
    assert deit_loss(student[:1], teacher[:1], kind).isfinite()
    none = torch.zeros(0, 10, requires_grad=True)
    value = deit_loss(none, torch.zeros(0, 10), kind)
    value.backward()
    assert value == 0 and none.grad.shape == (0, 10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kind": "firm"}, "kind must be one of hard, soft, got firm"),
        ({"temperature": 0}, "temperature must be above 0, got 0"),
        ({"student_taps": ()}, "student_taps must be one tap"),
    ],
)
def test_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        DeiT(**arguments)


def test_it_keeps_its_tap_and_says_how_to_get_one():
    method = DeiT()
    method.bind_taps(("norm",), ("norm",))
    method.bind_taps((), ())
    assert method.student_taps == ("head_dist",) and method.teacher_taps == ()
    pred = torch.zeros(2, 5)
    for taps in ({}, {"head_dist": torch.zeros(2, 4)}):
        with pytest.raises(StillroomError, match=r"student\.distilled = true") as caught:
            method.setup(Output(pred=pred, taps=taps), Output(pred=pred))
        assert caught.value.code == "SR-M333"
    method.setup(Output(pred=pred, taps={"head_dist": pred}), Output(pred=pred))
