"""What is special to the losses that compare images with each other: rkd, sp, pkt, cc, crd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.batches import batch_of
from kit.features import drawn
from sklearn.metrics import roc_auc_score

from stillroom.methods import rkd
from stillroom.methods.cc import _kernel, cc_loss
from stillroom.methods.crd import CRD, crd_loss
from stillroom.methods.pkt import _neighbours, pkt_loss
from stillroom.methods.rkd import RKD, rkd_angle_loss, rkd_distance_loss
from stillroom.methods.sp import sp_loss
from stillroom.types import Output

RKD_LOSSES = [rkd_distance_loss, rkd_angle_loss]
seeds = st.integers(0, 2**31)


def outputs(student, teacher):
    return Output(pred=student, taps={"a": student}), Output(pred=teacher, taps={"b": teacher})


def test_rkd_s_angles_in_groups_are_the_angles(monkeypatch):
    """The memory of B^3 angles is bounded; value and gradient stay what they are."""
    student, teacher = drawn(7, 3).requires_grad_(), drawn(7, 5, seed=1)
    whole = rkd_angle_loss(student, teacher)
    (wanted,) = torch.autograd.grad(whole, student)
    groups = []
    apart = rkd._angle_loss
    monkeypatch.setattr(rkd, "_angle_loss", lambda s, t, a, b: groups.append((a, b)) or apart(s, t, a, b))
    monkeypatch.setattr(rkd, "BUDGET", 2 * 7 * 7)
    parts = rkd_angle_loss(student, teacher)
    assert groups == [(0, 2), (2, 4), (4, 6), (6, 8)]
    (grad,) = torch.autograd.grad(parts, student)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(grad, wanted, rtol=1e-10, atol=1e-14)


def test_what_rkd_keeps_for_the_backward_pass_is_bounded(monkeypatch):
    """With groups, nothing of the size of B^3 waits for the backward pass."""
    student, teacher = drawn(24, 3).requires_grad_(), drawn(24, 5, seed=1)

    def largest():
        kept = [0]
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            rkd_angle_loss(student, teacher)
        return max(kept)

    assert largest() == 24**3
    monkeypatch.setattr(rkd, "BUDGET", 24 * 24)
    assert largest() <= 24 * 5


@pytest.mark.parametrize("loss", RKD_LOSSES)
@given(seed=seeds)
def test_rkd_in_float32_ignores_turning_scaling_and_moving_to_1e_5(loss, seed):
    """Park et al. 2019: also where the points lie far from 0."""
    student, teacher = drawn(5, 3, seed=seed), drawn(5, 4, seed=seed + 1)
    turn = torch.linalg.qr(drawn(3, 3, seed=seed + 2)).Q
    for scale, shift in ((1e-2, 0.01), (1.0, 5.0), (1e2, -5.0)):
        moved = (student @ turn * scale + shift).float()
        apart = (loss(moved, teacher.float()) - loss(student.float(), teacher.float())).abs()
        assert apart <= 1e-5 * max(1, abs(shift / scale))


@pytest.mark.parametrize("loss", [*RKD_LOSSES, sp_loss, pkt_loss, cc_loss])
@pytest.mark.parametrize("images", [0, 1, 2])
def test_too_few_images_cost_nothing_and_have_a_gradient(loss, images):
    student, teacher = torch.randn(images, 3, requires_grad=True), torch.randn(images, 4)
    value = loss(student, teacher)
    value.backward()
    assert student.grad.shape == (images, 3) and student.grad.isfinite().all()
    if images < 2 or loss in RKD_LOSSES:
        assert value.abs() <= 1e-12 and student.grad.abs().sum() <= 1e-5


@pytest.mark.parametrize("loss", [*RKD_LOSSES, sp_loss])
def test_points_that_coincide_and_images_of_zeros_give_no_infinite_gradient(loss):
    student, teacher = drawn(6, 3, dtype=torch.float32), drawn(6, 4, seed=1, dtype=torch.float32)
    student[1], student[2] = student[0], 0
    loss(student.requires_grad_(), teacher).backward()
    assert student.grad.isfinite().all() and 0 < student.grad.abs().max() < 10
    same = torch.ones(5, 3, requires_grad=True)
    loss(same, torch.randn(5, 3)).backward()
    assert same.grad.isfinite().all() and (loss is sp_loss or same.grad.abs().max() == 0)


def test_a_part_of_rkd_with_weight_zero_is_left_out():
    for arguments in ({"distance": 0, "angle": 1}, {"distance": 1, "angle": 0}):
        method = RKD(**arguments)
        method.bind_taps(("a",), ("b",))
        found = method.loss(*outputs(drawn(5, 3), drawn(5, 4, seed=1)), batch_of(5), 0.0)
        assert list(found) == [name for name, weight in arguments.items() if weight]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pkt_of_opposite_and_missing_vectors_has_a_finite_gradient(dtype):
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype=dtype, requires_grad=True)
    value = pkt_loss(student, torch.randn(4, 3, dtype=dtype))
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all() and torch.equal(student.grad[2], torch.zeros(2).to(dtype))


@given(seeds)
def test_pkt_s_neighbours_are_distributions_with_oneself_first(seed):
    p = _neighbours(drawn(5, 4, seed=seed))
    torch.testing.assert_close(p.sum(1), torch.ones(5).double())
    assert p.min() > 0 and torch.equal(p.argmax(1), torch.arange(5))


@given(seeds, st.floats(0.1, 2))
def test_cc_s_series_tends_to_the_gaussian_kernel(seed, gamma):
    """exp(-gamma |x - y|^2) of unit vectors; what is left out is below the next power's part, e^2g."""
    x = drawn(5, 4, seed=seed)
    unit = x / x.norm(dim=1, keepdim=True)
    gauss = torch.exp(-gamma * (unit[:, None] - unit[None]).square().sum(2))
    assert (_kernel(x, gamma, 25) - gauss).abs().max() <= 1e-9
    left_out = (2 * gamma) ** 3 / math.factorial(3)  # times e^-2g times the rest of the series, at most e^2g
    assert (_kernel(x, gamma, 2) - gauss).abs().max() <= left_out


def crd(ours=6, theirs=8, **arguments):
    method = CRD(**arguments)
    method.bind_taps(("a",), ("b",))
    torch.manual_seed(3)
    method.setup(*outputs(torch.zeros(2, ours), torch.zeros(2, theirs)))
    return method


def step(method, seed=0, labels=(0, 1, 2, 0, 1)):
    student = drawn(len(labels), 6, seed=seed, dtype=torch.float32).requires_grad_()
    seen = outputs(student, drawn(len(labels), 8, seed=seed + 100, dtype=torch.float32))
    return student, method.loss(*seen, batch_of(len(labels), torch.tensor(labels)), 0.0)["nce"]


@pytest.mark.parametrize("seed", range(4))
def test_crd_finds_planted_pairs_after_twenty_steps(seed):
    """AUC of unseen pairs above 0.95, the bank's rows of length 1.

    Two linear views of 16 hidden numbers, one of them noisy.
    """
    hidden = drawn(21 * 64, 16, seed=seed, dtype=torch.float32)
    noise = 0.3 * drawn(21 * 64, 24, seed=seed + 1, dtype=torch.float32)
    student = hidden @ drawn(16, 24, seed=seed + 2, dtype=torch.float32) + noise
    teacher = hidden @ drawn(16, 32, seed=seed + 3, dtype=torch.float32)
    method = crd(24, 32, dim=32, bank=512)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)

    def auc(rows):
        with torch.no_grad():
            s, t = method.embeddings(*outputs(student[rows], teacher[rows]))
        return roc_auc_score(torch.eye(64).flatten(), (s @ t.T).flatten())

    unseen = slice(20 * 64, None)
    before = auc(unseen)
    for start in range(0, 20 * 64, 64):
        rows = slice(start, start + 64)
        optimizer.zero_grad()
        seen = outputs(student[rows], teacher[rows])
        method.loss(*seen, batch_of(64, torch.full((64,), -1)), 0.0)["nce"].backward()
        optimizer.step()
    assert before < 0.75 < 0.95 < auc(unseen)
    for bank in (method.student_bank, method.teacher_bank):
        torch.testing.assert_close(bank.norm(dim=1), torch.ones(512))


def test_crd_s_memory_holds_the_last_rows_with_their_classes():
    method = crd(dim=4, bank=8)
    random = method.student_bank.clone()
    step(method, 0, (0, 1, 2, 3, 4))
    assert method.place == 5 and method.classes.tolist() == [0, 1, 2, 3, 4, -1, -1, -1]
    assert torch.equal(method.student_bank[5:], random[5:])
    student, _ = step(method, 1, (5, 6, 7, 8, 9))
    assert method.place == 2 and method.classes.tolist() == [8, 9, 2, 3, 4, 5, 6, 7]
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(method.student_embed(student))
    torch.testing.assert_close(method.student_bank[[5, 6, 7, 0, 1]], wanted)
    small = crd(dim=4, bank=3)
    step(small, 0, (0, 1, 2, 3, 4))  # of a batch larger than the memory its end stays
    assert small.place == 2 and small.classes.tolist() == [3, 4, 2]


def test_crd_resumes_exactly_and_evaluation_leaves_its_memory_alone():
    """Everything that a step reads is in the state: another object loaded from it goes on with the same numbers."""
    one, two = crd(dim=4, bank=16), crd(dim=4, bank=16)
    for seed in range(3):
        step(one, seed)
    torch.manual_seed(99)
    two.setup(*outputs(torch.zeros(2, 6), torch.zeros(2, 8)))
    two.load_state_dict(one.state_dict())
    for seed in range(3, 6):
        assert torch.equal(step(one, seed)[1], step(two, seed)[1])
    before = {name: value.clone() for name, value in one.state_dict().items()}
    step(one.eval())
    for state in (one.state_dict(), two.state_dict()):
        assert all(torch.equal(value, before[name]) for name, value in state.items())


@pytest.mark.parametrize("label", [7, 0])
def test_images_of_one_class_are_no_negatives(label):
    """With the bank full of one class, an image of that class pays for the pair alone."""
    method = crd(dim=4, bank=5)
    step(method, 0, (label,) * 5)
    method.eval()
    alone, apart, unknown = (step(method, 1, (other,) * 5)[1] for other in (label, 6, -1))
    assert alone < apart == unknown


def test_labels_that_are_no_classes_are_unknown_ones():
    method = crd(dim=4, bank=3)
    for target in (None, torch.rand(5), {"boxes": torch.rand(5, 4)}):
        seen = outputs(torch.randn(5, 6), torch.randn(5, 8))
        assert method.loss(*seen, batch_of(5, target), 0.0)["nce"].isfinite()
    assert method.classes.tolist() == [-1, -1, -1] and method.student_bank.dtype == torch.float32


@given(seeds, st.integers(1, 9))
def test_crd_costs_less_for_better_pairs_whatever_the_order_of_others(seed, negatives):
    anchor, other, bank = (
        torch.nn.functional.normalize(drawn(n, 5, seed=seed + i)) for i, n in enumerate((4, 4, negatives))
    )
    counted, scale = torch.ones(4, negatives, dtype=torch.bool), torch.tensor(2.0).double()
    value = crd_loss(anchor, other, bank, counted, scale)
    assert 0 < crd_loss(anchor, anchor, bank, counted, scale) < value
    order = torch.randperm(negatives)
    assert torch.isclose(crd_loss(anchor, other, bank[order], counted, scale), value, rtol=1e-10)
