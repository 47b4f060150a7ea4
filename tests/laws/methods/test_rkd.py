"""Properties of RKD's two losses, whatever the numbers (techniques.md 15)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.methods import rkd
from stillroom.methods.rkd import RKD, rkd_angle_loss, rkd_distance_loss
from stillroom.types import Batch, Output

LOSSES = [rkd_distance_loss, rkd_angle_loss]
seeds = st.integers(0, 2**31)
sizes = st.tuples(st.integers(3, 7), st.integers(2, 5), st.integers(2, 6))


def two(size, seed, dtype=torch.float64):
    images, ours, theirs = size
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(images, width, generator=generator, dtype=dtype) for width in (ours, theirs))


def rotation(width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q


@pytest.mark.parametrize("loss", LOSSES)
@given(size=sizes, seed=seeds)
def test_zero_at_equality_and_above_elsewhere(loss, size, seed):
    student, teacher = two(size, seed)
    assert loss(student, student.clone()) <= 1e-24
    assert loss(student, teacher) > 1e-9


@pytest.mark.parametrize("loss", LOSSES)
@given(size=sizes, seed=seeds, scale=st.floats(1e-2, 1e2), shift=st.floats(-5, 5))
def test_turning_scaling_and_moving_the_student_changes_nothing(loss, size, seed, scale, shift):
    """techniques.md 15: invariant to rotation and scale of the student's embedding, 1e-5."""
    student, teacher = two(size, seed)
    moved = student @ rotation(size[1], seed) * scale + shift
    assert (loss(moved, teacher) - loss(student, teacher)).abs() <= 1e-9
    moved, student, teacher = moved.float(), student.float(), teacher.float()
    assert (loss(moved, teacher) - loss(student, teacher)).abs() <= 1e-5 * max(1, abs(shift / scale))


@pytest.mark.parametrize("loss", LOSSES)
@given(size=sizes, seed=seeds)
def test_the_order_of_the_images_does_not_matter(loss, size, seed):
    student, teacher = two(size, seed)
    order = torch.randperm(size[0])
    assert torch.isclose(loss(student[order], teacher[order]), loss(student, teacher), rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@given(seed=seeds)
@settings(max_examples=5, deadline=None)
def test_gradient(loss, seed):
    student, teacher = two((4, 3, 5), seed)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.requires_grad_())


def test_angles_in_groups_are_the_angles(monkeypatch):
    """techniques.md 15: the memory of B^3 angles is bounded; value and gradient stay what they are."""
    student, teacher = two((7, 3, 5), 0)
    student.requires_grad_()
    whole = rkd_angle_loss(student, teacher)
    (wanted,) = torch.autograd.grad(whole, student)
    groups = []
    apart = rkd._angles_apart
    monkeypatch.setattr(rkd, "_angles_apart", lambda s, t, a, b: groups.append((a, b)) or apart(s, t, a, b))
    monkeypatch.setattr(rkd, "BUDGET", 2 * 7 * 7)
    parts = rkd_angle_loss(student, teacher)
    assert groups == [(0, 2), (2, 4), (4, 6), (6, 8)]
    (grad,) = torch.autograd.grad(parts, student)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(grad, wanted, rtol=1e-10, atol=1e-14)


def test_what_is_kept_for_the_backward_pass_is_bounded(monkeypatch):
    """techniques.md 15: with groups, nothing of the size of B^3 waits for the backward pass."""
    student, teacher = two((24, 3, 5), 0)
    student.requires_grad_()

    def largest():
        kept = [0]
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            rkd_angle_loss(student, teacher)
        return max(kept)

    assert largest() == 24**3
    monkeypatch.setattr(rkd, "BUDGET", 24 * 24)
    assert largest() <= 24 * 5


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("images", [0, 1, 2])
def test_fewer_than_three_images_cost_nothing_and_have_a_gradient(loss, images):
    student, teacher = torch.randn(images, 3, requires_grad=True), torch.randn(images, 4)
    value = loss(student, teacher)
    value.backward()
    assert value.abs() <= 1e-12 and student.grad.shape == (images, 3) and student.grad.abs().sum() <= 1e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_points_that_coincide_give_no_infinite_gradient(loss):
    student, teacher = two((6, 3, 4), 0, torch.float32)
    student[1] = student[0]
    student.requires_grad_()
    loss(student, teacher).backward()
    assert student.grad.isfinite().all() and 0 < student.grad.abs().max() < 10
    same = torch.ones(5, 3, requires_grad=True)
    loss(same, torch.randn(5, 3)).backward()
    assert torch.equal(same.grad, torch.zeros(5, 3))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(loss, dtype):
    student, teacher = two((8, 6, 7), 0, torch.float32)
    assert loss(student.to(dtype) * 1000, teacher.to(dtype) * 1000).isfinite()
    near, exact = loss(student.to(dtype), teacher.to(dtype)), loss(student, teacher)
    assert near.item() == pytest.approx(exact.item(), rel=0.02) and near.dtype == torch.float32
    with torch.autocast("cpu", dtype):
        assert loss(student, teacher).item() == pytest.approx(exact.item(), rel=1e-5)


def test_arguments():
    assert list(charge(RKD(distance=0, angle=1))) == ["angle"]
    assert list(charge(RKD(distance=1, angle=0))) == ["distance"]
    with pytest.raises(ValueError, match="distance must be at least 0, got -1"):
        RKD(distance=-1)
    with pytest.raises(ValueError, match="above 0"):
        RKD(distance=0, angle=0)


def charge(method):
    method.bind_taps(("a",), ("b",))
    student, teacher = two((5, 3, 4), 1)
    batch = Batch(images=torch.zeros(5, 1, 1, 1), target=None, keys=torch.arange(5))
    return method.loss(Output(pred=student, taps={"a": student}), Output(pred=teacher, taps={"b": teacher}), batch, 0.0)
