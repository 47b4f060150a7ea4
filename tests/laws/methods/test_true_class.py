"""What is special to the losses that treat the true class apart: dkd, nkd, ofa, ca_mkd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from kit.batches import batch_of
from kit.features import drawn
from kit.method_inputs import logit_terms

from stillroom.methods._errors import IncomparableFeatures
from stillroom.methods.ca_mkd import CAMKD, ca_mkd_loss, members_loss, teacher_weights
from stillroom.methods.dkd import DKD, dkd_loss
from stillroom.methods.hinton import Hinton, hinton_loss
from stillroom.methods.nkd import NKD, nkd_loss
from stillroom.methods.ofa import OFA, ofa_loss
from stillroom.types import Mixed, Output

seeds = st.integers(0, 2**31)
counts = st.integers(2, 5)
temperatures = st.floats(0.5, 20)
ROWS, CLASSES = 6, 7


def labelled(*shape, seed=0, dtype=torch.float64):
    """Two networks' logits and a label for each image."""
    target = torch.randint(shape[1], shape[:1], generator=torch.Generator().manual_seed(seed))
    return 3 * drawn(*shape, seed=seed, dtype=dtype), 3 * drawn(*shape, seed=seed + 1, dtype=dtype), target


@pytest.mark.parametrize(("dtype", "gate"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_hinton_is_a_mixture_of_dkd_s_two_parts(dtype, gate, temperature):
    """Zhao et al. 2022, eq. 5: KL = KL(b_t || b_s) + (1 - p_t) KL(q_t || q_s), row by row."""
    student, teacher, target = labelled(64, 10, dtype=dtype)
    hidden = 1 - (teacher / temperature).softmax(1).gather(1, target[:, None])
    for row, beta in zip(torch.arange(64).split(1), hidden.flatten().tolist(), strict=True):
        one = dkd_loss(student[row], teacher[row], target[row], alpha=1.0, beta=beta, temperature=temperature)
        whole = hinton_loss(student[row], teacher[row], temperature)
        assert abs(sum(one) - whole) <= gate * temperature**2 * max(1, sum(one))


def test_dkd_s_weights_multiply_and_two_classes_have_one_part():
    student, teacher, target = labelled(4, 5)
    one, many = (
        torch.stack(dkd_loss(student, teacher, target, alpha=alpha, beta=beta, temperature=4.0))
        for alpha, beta in ((1.0, 1.0), (2.0, 8.0))
    )
    assert torch.allclose(many, one * torch.tensor([2.0, 8.0]).double(), rtol=1e-14)
    student, teacher, target = labelled(4, 2)
    terms = logit_terms(DKD(), student, teacher, target)
    assert list(terms) == ["tckd"] and torch.isclose(terms["tckd"], hinton_loss(student, teacher, 4.0))


@given(seeds, temperatures)
def test_nkd_s_second_part_is_least_at_equality_and_blind_to_the_true_logit(seed, temperature):
    student, teacher, target = labelled(4, 5, seed=seed)
    how = {"gamma": 1.5, "temperature": temperature}
    first, second = nkd_loss(student, teacher, target, **how)
    same = teacher.clone().requires_grad_()
    _, least = nkd_loss(same, teacher, target, **how)
    (grad,) = torch.autograd.grad(least, same)
    assert 0 <= least < second and grad.abs().max() <= 1e-12
    louder = student.scatter_add(1, target[:, None], torch.full((4, 1), 5.0).double())
    moved = nkd_loss(louder, teacher, target, **how)
    assert torch.equal(moved[1], second) and moved[0] < first


def test_nkd_s_pull_does_not_fade_with_the_temperature():
    """T^2 makes up for the two divisions by T: far above the logits the pull is gamma / (K - 1) (s - t), centred."""
    student, teacher, target = labelled(4, 5)
    student.requires_grad_()
    _, second = nkd_loss(student, teacher, target, gamma=1.5, temperature=1e5)
    (grad,) = torch.autograd.grad(second, student)
    others = torch.ones_like(student, dtype=torch.bool).scatter_(1, target[:, None], value=False)
    apart = (student - teacher).detach()[others].view(4, 4)
    expected = 1.5 / 4 * (apart - apart.mean(1, keepdim=True)) / 4
    assert torch.allclose(grad[others].view(4, 4), expected, rtol=1e-3, atol=1e-4)


def test_nkd_of_two_classes_has_one_part():
    assert list(logit_terms(NKD(), torch.randn(3, 2), torch.randn(3, 2), torch.tensor([0, 1, 1]))) == ["target"]


@given(seeds, st.floats(0.5, 8))
def test_ofa_at_eps_one_is_the_cross_entropy_with_the_teacher(seed, temperature):
    """Hao et al. 2023: to 1e-6; the label then counts for nothing."""
    student, teacher, target = labelled(4, 5, seed=seed)
    expected = F.cross_entropy(student / temperature, (teacher / temperature).softmax(1)).item()
    for labels in (target, (target + 1) % 5):
        assert ofa_loss(student, teacher, labels, 1.0, temperature).item() == pytest.approx(expected, abs=1e-6)


@given(st.integers(2, 9), seeds, st.floats(1.1, 4))
def test_ofa_with_a_larger_eps_puts_more_weight_on_the_target(classes, seed, eps):
    """What -log p_s of each class counts for, found from outside: the losses of K students are linear in it."""
    _, teacher, target = labelled(1, classes, seed=seed)
    students = 3 * torch.eye(classes).double()

    def weights(eps):
        losses = torch.stack([ofa_loss(one[None], teacher, target, eps) for one in students])
        return torch.linalg.solve(-students.log_softmax(1), losses)

    one, more, p, true = weights(1.0), weights(eps), teacher[0].softmax(0), F.one_hot(target[0], classes).bool()
    assert torch.allclose(one, p, atol=1e-9)
    assert torch.allclose(more[true], (p[true] + 1) ** eps - 1, atol=1e-9) and (more > one)[true].all()
    assert torch.allclose(more[~true], p[~true] ** eps, atol=1e-9) and (more < one + 1e-9)[~true].all()


def test_ofa_does_not_tap_the_teacher_and_each_branch_learns():
    torch.manual_seed(0)
    method = OFA()
    method.bind_taps(("a", "b", "c"), ("x", "y", "z"))
    assert method.student_taps == ("a", "b", "c") and method.teacher_taps == ()
    maps = {"a": torch.randn(4, 4, 8, 8), "b": torch.randn(4, 10, 6), "c": torch.randn(4, 12, 1, 1)}
    student, teacher = Output(pred=torch.randn(4, 5, requires_grad=True), taps=maps), Output(pred=torch.randn(4, 5))
    method.setup(student, teacher)
    for images in (4, 1):
        seen = Output(pred=student.pred[:images], taps={name: tap[:images] for name, tap in maps.items()})
        method.zero_grad()
        batch = batch_of(images, torch.arange(images))
        sum(method.loss(seen, Output(pred=teacher.pred[:images]), batch, 0.0).values()).backward()
        assert all(branch[-1].weight.grad.abs().sum() > 0 for branch in method.branches)
        assert student.pred.grad.abs().sum() > 0
    with pytest.raises(IncomparableFeatures):
        method.setup(student, Output(pred=torch.randn(4, 5, 2, 2)))


def several(count, seed=0):
    """A student, teachers and labels."""
    student, _, target = labelled(ROWS, CLASSES, seed=seed)
    return student, 3 * drawn(count, ROWS, CLASSES, seed=seed + 2), target


def members(count, **arguments):
    method = CAMKD(**arguments)
    method.bind_taps(("s",) * count, tuple(f"{n + 1}/t" for n in range(count)) if count > 1 else ("t",))
    return method


def cost(method, student, teachers, target, mixed=None):
    taps = dict(zip(method.pred_taps, teachers, strict=False))
    batch = batch_of(len(student), target, mixed=mixed)
    return method.loss(Output(pred=student), Output(pred=teachers.mean(0), taps=taps), batch, 0.5)["kl"]


def wrong(teachers, target):
    return -teachers.log_softmax(2).gather(2, target.expand(len(teachers), -1)[..., None]).squeeze(2)


@given(st.integers(1, 5), seeds)
def test_weights_of_teachers_sum_to_one_and_the_least_wrong_has_the_greatest(count, seed):
    """Zhang et al. 2022, eq. 4."""
    _, teachers, target = several(count, seed)
    w = teacher_weights(wrong(teachers, target))
    assert torch.allclose(w.sum(0), torch.ones(ROWS).double(), rtol=0, atol=1e-12)
    assert (w >= 0).all() and (w <= 1 / max(count - 1, 1) + 1e-12).all()
    assert torch.equal(w.argmax(0), wrong(teachers, target).argmin(0))


def test_one_that_is_sure_and_right_among_two_that_are_not():
    right, unsure, misled = torch.zeros(3, 1, CLASSES).double()
    right[0, 2], misled[0, 4] = 20.0, 20.0
    w = teacher_weights(wrong(torch.stack([unsure, right, misled]), torch.tensor([2])))[:, 0]
    assert w.argmax() == 1 and w.argmin() == 2 and w[2] < 1e-6 and w[1] > 0.49


@given(counts, seeds, temperatures)
def test_identical_teachers_are_one_and_one_is_hinton_s(count, seed, temperature):
    student, teachers, target = several(count, seed)
    found = cost(members(count, temperature=temperature), student, teachers[:1].expand(count, -1, -1), target)
    alone = cost(members(1, temperature=temperature), student, teachers[:1], target)
    (plain,) = logit_terms(Hinton(temperature=temperature), student, teachers[0]).values()
    assert torch.isclose(found, plain, rtol=1e-6) and torch.isclose(alone, plain, rtol=1e-9)


@given(counts, seeds)
def test_teachers_have_no_order_and_without_labels_all_count_alike(count, seed):
    student, teachers, target = several(count, seed)
    method = members(count)
    assert torch.isclose(cost(method, student, teachers.flip(0), target), cost(method, student, teachers, target))
    uniform = torch.stack([hinton_loss(student, one, 4.0) for one in teachers]).mean()
    assert torch.isclose(cost(method, student, teachers, torch.full_like(target, -1)), uniform, rtol=1e-9)
    some = target.where(torch.arange(ROWS) % 2 == 0, -1)
    halves = [cost(method, student[i::2], teachers[:, i::2], some[i::2]) / 2 for i in (0, 1)]
    assert torch.isclose(cost(method, student, teachers, some), sum(halves), rtol=1e-9)


@given(seeds, st.floats(0.5, 1))
def test_a_mixed_image_has_two_labels_in_their_shares(seed, share):
    student, teachers, target = several(3, seed)
    other, shares = target.roll(1), torch.full((ROWS,), share, dtype=torch.float64)
    w = teacher_weights(share * wrong(teachers, target) + (1 - share) * wrong(teachers, other))
    found = cost(members(3), student, teachers, target, Mixed(target=other, share=shares))
    assert torch.isclose(found, ca_mkd_loss(student, teachers, w, 4.0), rtol=1e-6)
    twice = cost(members(3), student, teachers, target, Mixed(target=target, share=shares))
    assert torch.isclose(twice, cost(members(3), student, teachers, target))


@given(seeds, temperatures)
def test_nothing_to_learn_from_teachers_that_say_the_same(seed, temperature):
    student, teachers, target = several(3, seed)
    w = teacher_weights(wrong(teachers, target))
    assert ca_mkd_loss(student, teachers, w, temperature) > 0
    assert abs(ca_mkd_loss(student, student.expand(3, -1, -1), w, temperature)) <= 1e-7


def test_pixels_are_rows_and_an_image_s_features_weigh_what_its_pixels_do():
    student, *teachers = (drawn(2, 4, 3, 3, seed=seed) for seed in range(4))
    target = torch.randint(-1, 4, (2, 3, 3), generator=torch.Generator().manual_seed(0))
    flat = [x.permute(0, 2, 3, 1).reshape(18, 4) for x in (student, *teachers)]
    found = cost(members(3), student, torch.stack(teachers), target)
    assert torch.isclose(found, cost(members(3), flat[0], torch.stack(flat[1:]), target.flatten()), rtol=1e-9)

    taps = {f"{n}/pred": one for n, one in enumerate(teachers, 1)}
    taps |= {f"{n}/t": drawn(2, 4 + n, seed=10 + n) for n in (1, 2, 3)}
    seen, heard = Output(pred=student, taps={"s": drawn(2, 6, seed=9)}), Output(pred=teachers[0], taps=taps)
    method = members(3, features=2.0)
    method.setup(seen, heard)
    method.double()
    known = target.flatten() >= 0
    w = (
        teacher_weights(wrong(torch.stack(flat[1:]), target.flatten().clamp_min(0)) * known)
        .unflatten(1, (2, 9))
        .mean(2)
    )
    vectors = [projection(seen.taps["s"]) for projection in method.projections]
    expected = 2 * members_loss(vectors, [taps[f"{n}/t"] for n in (1, 2, 3)], w)
    terms = method.loss(method.project(seen), heard, batch_of(2, target), 0.5)
    assert set(terms) == {"kl", "features"} and torch.isclose(terms["features"], expected, rtol=1e-9)


def test_all_that_ca_mkd_learns_gets_a_gradient():
    student, teachers, target = several(2)
    method = members(2, features=1.0)
    seen = Output(pred=student.requires_grad_(), taps={"s": drawn(ROWS, 3).requires_grad_()})
    taps = {"1/t": drawn(ROWS, 4, 2, 2), "2/t": drawn(ROWS, 9, 5), "1/pred": teachers[0], "2/pred": teachers[1]}
    heard = Output(pred=teachers[0], taps=taps)
    method.setup(seen, heard)
    method.double()
    sum(method.loss(method.project(seen), heard, batch_of(ROWS, target), 0.5).values()).backward()
    reached = [student.grad, seen.taps["s"].grad, *(p.grad for p in method.parameters())]
    assert len(reached) == 6 and all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in reached)
