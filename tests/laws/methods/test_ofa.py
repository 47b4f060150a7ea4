"""What must hold of OFA-KD, whatever the numbers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import StillroomError
from stillroom.methods.ofa import OFA, ofa_loss
from stillroom.types import Batch, Output

seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(1, 6), st.integers(2, 9))
laws = settings(deadline=None, max_examples=50)


def made(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=dtype) * 3 for _ in range(2))
    return student, teacher, torch.randint(shape[1], (shape[0],), generator=generator)


def weights(teacher, target, eps):
    """What -log p_s of each class counts for, [K], found from outside: K students' losses are linear in it."""
    classes = len(teacher)
    students = 3 * torch.eye(classes, dtype=torch.float64)
    losses = torch.stack([ofa_loss(one[None], teacher[None], target[None], eps) for one in students])
    return torch.linalg.solve(-students.log_softmax(1), losses)


@laws
@given(shapes, seeds, st.floats(0.5, 8))
def test_at_eps_one_it_is_the_cross_entropy_with_the_teacher(shape, seed, temperature):
    """techniques.md 22: eps = 1 is exactly CE(p^T, p^S), to 1e-6; the label then counts for nothing."""
    student, teacher, target = made(shape, seed)
    expected = F.cross_entropy(student / temperature, (teacher / temperature).softmax(1)).item()
    assert ofa_loss(student, teacher, target, 1.0, temperature).item() == pytest.approx(expected, abs=1e-6)
    other = (target + 1) % shape[1]
    assert ofa_loss(student, teacher, other, 1.0, temperature).item() == pytest.approx(expected, abs=1e-6)


@laws
@given(st.integers(2, 9), seeds, st.floats(1.1, 4))
def test_a_larger_eps_puts_more_weight_on_the_target(classes, seed, eps):
    """techniques.md 22: eps > 1 weighs the target more than eps = 1 does, and the other classes less."""
    _, teacher, target = made((1, classes), seed)
    one, more = (weights(teacher[0], target[0], e) for e in (1.0, eps))
    p = teacher[0].softmax(0)
    true = F.one_hot(target[0], classes).bool()
    assert torch.allclose(one, p, atol=1e-9)
    assert torch.allclose(more[true], (p[true] + 1) ** eps - 1, atol=1e-9) and (more > one)[true].all()
    assert torch.allclose(more[~true], p[~true] ** eps, atol=1e-9) and (more < one + 1e-9)[~true].all()


@laws
@given(shapes, seeds, st.floats(-50, 50), st.floats(0.5, 3))
def test_adding_a_constant_to_an_image_changes_nothing(shape, seed, constant, eps):
    student, teacher, target = made(shape, seed)
    moved = ofa_loss(student + constant, teacher - constant, target, eps)
    assert torch.isclose(moved, ofa_loss(student, teacher, target, eps), rtol=1e-9, atol=1e-9)


@laws
@given(shapes, seeds, st.floats(0.5, 3))
def test_at_least_zero_and_blind_to_the_order(shape, seed, eps):
    student, teacher, target = made(shape, seed)
    found, order, classes = ofa_loss(student, teacher, target, eps), torch.randperm(shape[0]), torch.randperm(shape[1])
    assert found >= 0
    place = classes.argsort()  # where each class went
    mixed = ofa_loss(student[order][:, classes], teacher[order][:, classes], place[target[order]], eps)
    assert torch.isclose(mixed, found, rtol=1e-9)


@laws
@given(seeds)
def test_per_pixel_is_the_mean_over_pixels(seed):
    student, teacher, _ = made((2, 5, 3, 4), seed)
    target = torch.randint(5, (24,))
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    assert torch.isclose(ofa_loss(student, teacher, target, 1.5), ofa_loss(*flat, target, 1.5), rtol=1e-12)


def test_gradcheck():
    student, teacher, target = made((3, 4), 0)
    assert torch.autograd.gradcheck(lambda x: ofa_loss(x, teacher, target, 1.5, 2.0), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher, target = made((4, 10), 0, torch.float32)
    assert ofa_loss(student.to(dtype) * 100, teacher.to(dtype) * 100, target, 1.5).isfinite()
    near = ofa_loss(student.to(dtype), teacher.to(dtype), target, 1.5)
    assert near == pytest.approx(ofa_loss(student, teacher, target, 1.5).item(), rel=0.02)


def test_no_image():
    none = torch.randn(0, 3, requires_grad=True)
    loss = ofa_loss(none, torch.randn(0, 3), torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss == 0 and none.grad.shape == (0, 3)


def ready(images=4):
    torch.manual_seed(0)
    method = OFA()
    method.bind_taps(("a", "b", "c"), ("x", "y", "z"))
    maps = {"a": torch.randn(images, 4, 8, 8), "b": torch.randn(images, 10, 6), "c": torch.randn(images, 12, 1, 1)}
    student = Output(pred=torch.randn(images, 5, requires_grad=True), taps=maps)
    teacher = Output(pred=torch.randn(images, 5))
    method.setup(student, teacher)
    keys, target = torch.arange(images), torch.arange(images) % 5
    return method, student, teacher, Batch(images=torch.zeros(images, 1, 2, 2), target=target, keys=keys)


@pytest.mark.parametrize("images", [1, 4])
def test_the_teacher_is_not_tapped_and_every_parameter_learns(images):
    method, student, teacher, batch = ready(images)
    assert method.student_taps == ("a", "b", "c") and method.teacher_taps == ()
    terms = method.loss(method.project(student), teacher, batch, 0.0)
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in method.parameters()) and student.pred.grad.abs().sum() > 0
    assert all(branch[-1].weight.grad.abs().sum() > 0 for branch in method.branches)


def test_an_image_without_a_label_counts_for_nothing():
    method, student, teacher, batch = ready()
    some = Batch(images=batch.images, target=torch.tensor([0, -1, 2, -100]), keys=batch.keys)
    found = method.loss(student, teacher, some, 0.0)
    kept = [0, 2]
    few = Output(pred=student.pred[kept], taps={name: tap[kept] for name, tap in student.taps.items()})
    rest = Batch(images=batch.images[kept], target=torch.tensor([0, 2]), keys=batch.keys[kept])
    expected = method.loss(few, Output(pred=teacher.pred[kept]), rest, 0.0)
    for name in ("pred", "stages"):
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-5)


def test_images_do_not_see_each_other():
    """The branches' norm is of one image, so a batch costs the mean of its images, in any number of processes."""
    method, student, teacher, batch = ready()
    whole = method.loss(student, teacher, batch, 0.0)["stages"].item()
    alone = []
    for i in range(4):
        one = Output(pred=student.pred[i : i + 1], taps={name: tap[i : i + 1] for name, tap in student.taps.items()})
        part = Batch(images=batch.images[:1], target=batch.target[i : i + 1], keys=batch.keys[:1])
        alone.append(method.loss(one, Output(pred=teacher.pred[i : i + 1]), part, 0.0)["stages"].item())
    assert whole == pytest.approx(math.fsum(alone) / 4, rel=1e-5)


def test_refuses_what_it_cannot_do():
    for name in ("eps", "temperature"):
        with pytest.raises(ValueError, match=f"{name} must be above 0, got 0"):
            OFA(**{name: 0.0})
    method, student, teacher, batch = ready()
    with pytest.raises(StillroomError, match="SR-M330"):
        method.setup(student, Output(pred=torch.randn(4, 5, 2, 2)))
    with pytest.raises(StillroomError, match="SR-M332"):
        method.loss(student, teacher, Batch(images=batch.images, target=torch.rand(4), keys=batch.keys), 0.0)
