"""Properties of CA-MKD, whatever the numbers (techniques.md 27)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import StillroomError
from stillroom.methods.ca_mkd import CAMKD, ca_mkd_loss, members_loss, teacher_weights
from stillroom.methods.hinton import Hinton, hinton_loss
from stillroom.types import Batch, Mixed, Output

seeds = st.integers(0, 2**31)
counts = st.integers(1, 5)
temperatures = st.floats(0.5, 20)
ROWS, CLASSES = 6, 7


def drawn(count, seed, dtype=torch.float64):
    """A student, teachers and labels."""
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(ROWS, CLASSES, generator=generator, dtype=dtype) * 3
    teachers = torch.randn(count, ROWS, CLASSES, generator=generator, dtype=dtype) * 3
    return student, teachers, torch.randint(CLASSES, (ROWS,), generator=generator)


def connected(count, **arguments):
    method = CAMKD(**arguments)
    method.bind_taps(("s",) * count, tuple(f"{n + 1}/t" for n in range(count)) if count > 1 else ("t",))
    return method


def charged(method, student, teachers, target, mixed=None):
    batch = Batch(
        images=torch.zeros(len(student), 1, 2, 2), target=target, keys=torch.arange(len(student)), mixed=mixed
    )
    taps = dict(zip(method.own, teachers, strict=False))
    return method.loss(Output(pred=student), Output(pred=teachers.mean(0), taps=taps), batch, 0.5)["kl"]


def wrong(teachers, target):
    return -teachers.log_softmax(2).gather(2, target.expand(len(teachers), -1)[..., None]).squeeze(2)


@given(counts, seeds)
def test_weights_sum_to_one_and_the_least_wrong_has_the_greatest(count, seed):
    """techniques.md 27: sum w = 1; the teacher that is right and sure of it counts most."""
    _, teachers, target = drawn(count, seed)
    w = teacher_weights(wrong(teachers, target))
    assert torch.allclose(w.sum(0), torch.ones(ROWS, dtype=w.dtype), rtol=0, atol=1e-12)
    assert (w >= 0).all() and (w <= 1 / max(count - 1, 1) + 1e-12).all()
    assert torch.equal(w.argmax(0), wrong(teachers, target).argmin(0))


def test_one_that_is_sure_and_right_among_two_that_are_not():
    right, unsure, misled = torch.zeros(3, 1, CLASSES).double()
    right[0, 2], misled[0, 4] = 20.0, 20.0
    w = teacher_weights(wrong(torch.stack([unsure, right, misled]), torch.tensor([2])))[:, 0]
    assert w.argmax() == 1 and w.argmin() == 2 and w[2] < 1e-6 and w[1] > 0.49


@given(counts, seeds, temperatures)
@settings(max_examples=30)
def test_identical_teachers_are_one(count, seed, temperature):
    """techniques.md 27, to 1e-6; and one teacher is Hinton's loss."""
    student, teachers, target = drawn(count, seed)
    same = teachers[:1].expand(count, -1, -1)
    found = charged(connected(count, temperature=temperature), student, same, target)
    assert torch.isclose(found, hinton_loss(student, teachers[0], temperature), rtol=1e-6)
    alone = charged(connected(1, temperature=temperature), student, teachers[:1], target)
    batch = Batch(images=torch.zeros(ROWS, 1, 2, 2), target=target, keys=torch.arange(ROWS))
    (plain,) = Hinton(temperature=temperature).loss(Output(pred=student), Output(pred=teachers[0]), batch, 0.5).values()
    assert torch.isclose(alone, plain, rtol=1e-9)


@given(st.integers(2, 5), seeds)
@settings(max_examples=30)
def test_the_order_of_teachers_does_not_matter(count, seed):
    student, teachers, target = drawn(count, seed)
    found = charged(connected(count), student, teachers, target)
    assert torch.isclose(charged(connected(count), student, teachers.flip(0), target), found, rtol=1e-9)


@given(st.integers(2, 5), seeds)
@settings(max_examples=30)
def test_without_labels_all_count_alike(count, seed):
    student, teachers, target = drawn(count, seed)
    uniform = torch.stack([hinton_loss(student, one, 4.0) for one in teachers]).mean()
    nobody = torch.full_like(target, -1)
    assert torch.isclose(charged(connected(count), student, teachers, nobody), uniform, rtol=1e-9)
    some = target.where(torch.arange(ROWS) % 2 == 0, -1)
    known, rest = some >= 0, some < 0
    parts = [
        charged(connected(count), student[one], teachers[:, one], some[one]) * one.sum() / ROWS for one in (known, rest)
    ]
    assert torch.isclose(charged(connected(count), student, teachers, some), parts[0] + parts[1], rtol=1e-9)


@given(seeds, st.floats(0.5, 1))
@settings(max_examples=30)
def test_a_mixed_image_has_two_labels_in_their_shares(seed, share):
    student, teachers, target = drawn(3, seed)
    other = target.roll(1)
    w = teacher_weights(share * wrong(teachers, target) + (1 - share) * wrong(teachers, other))
    mixed = Mixed(target=other, share=torch.full((ROWS,), share, dtype=torch.float64))
    found = charged(connected(3), student, teachers, target, mixed)
    assert torch.isclose(found, ca_mkd_loss(student, teachers, w, 4.0), rtol=1e-6)
    twice = Mixed(target=target, share=mixed.share)
    assert torch.isclose(
        charged(connected(3), student, teachers, target, twice), charged(connected(3), student, teachers, target)
    )


@given(seeds, temperatures)
def test_zero_at_equality_and_never_below(seed, temperature):
    student, teachers, target = drawn(3, seed)
    w = teacher_weights(wrong(teachers, target))
    assert ca_mkd_loss(student, teachers, w, temperature) >= 0
    assert abs(ca_mkd_loss(student, student.expand(3, -1, -1), w, temperature)) <= 1e-7


def test_pixels_are_rows_and_an_image_s_features_weigh_what_its_pixels_do():
    generator = torch.Generator().manual_seed(0)
    student, *teachers = (torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64) for _ in range(4))
    target = torch.randint(-1, 4, (2, 3, 3), generator=generator)
    flat = [x.permute(0, 2, 3, 1).reshape(18, 4) for x in (student, *teachers)]
    method = connected(3)
    found = charged(method, student, torch.stack(teachers), target)
    expected = charged(method, flat[0], torch.stack(flat[1:]), target.flatten())
    assert torch.isclose(found, expected, rtol=1e-9)
    rich = connected(3, features=2.0)
    taps = {f"{n}/pred": one for n, one in enumerate(teachers, 1)}
    taps |= {f"{n}/t": torch.randn(2, 5, generator=generator, dtype=torch.float64) for n in (1, 2, 3)}
    ours = {"s": torch.randn(2, 6, generator=generator, dtype=torch.float64)}
    seen, heard = Output(pred=student, taps=ours), Output(pred=teachers[0], taps=taps)
    rich.setup(seen, heard)
    rich.double()
    batch = Batch(images=torch.zeros(2, 1, 3, 3), target=target, keys=torch.arange(2))
    known = target.flatten().clamp_min(0)
    w = teacher_weights(wrong(torch.stack(flat[1:]), known) * (target.flatten() >= 0)).unflatten(1, (2, 9)).mean(2)
    vectors = [projection(ours["s"]) for projection in rich.projections]
    expected = 2 * members_loss(vectors, [taps[f"{n}/t"] for n in (1, 2, 3)], w)
    assert torch.isclose(rich.loss(rich.project(seen), heard, batch, 0.5)["features"], expected, rtol=1e-9)


def test_everything_it_learns_is_reached():
    student, teachers, target = drawn(2, 0)
    method = connected(2, features=1.0)
    ours = {"s": torch.randn(ROWS, 3, dtype=torch.float64, requires_grad=True)}
    taps = {"1/t": torch.randn(ROWS, 4, 2, 2).double(), "2/t": torch.randn(ROWS, 9, 5).double()}
    seen = Output(pred=student.requires_grad_(), taps=ours)
    heard = Output(pred=teachers[0], taps=taps | {"1/pred": teachers[0], "2/pred": teachers[1]})
    method.setup(seen, heard)
    method.double()
    batch = Batch(images=torch.zeros(ROWS, 1, 2, 2), target=target, keys=torch.arange(ROWS))
    terms = method.loss(method.project(seen), heard, batch, 0.5)
    assert set(terms) == {"kl", "features"}
    sum(terms.values()).backward()
    reached = [student.grad, ours["s"].grad, *(p.grad for p in method.parameters())]
    assert len(reached) == 6 and all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in reached)


def test_gradcheck():
    student, teachers, target = drawn(3, 0)
    method = connected(3)
    assert torch.autograd.gradcheck(lambda z: charged(method, z, teachers, target), student.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teachers, target = drawn(3, 0, torch.float32)
    method = connected(3)
    assert math.isfinite(charged(method, (student * 100).to(dtype), (teachers * 100).to(dtype), target))
    near = charged(method, student.to(dtype), teachers.to(dtype), target)
    assert near.item() == pytest.approx(charged(method, student, teachers, target).item(), rel=0.02)


def test_what_is_refused():
    student, teachers, _ = drawn(2, 0)
    with pytest.raises(StillroomError) as refused:
        charged(connected(2), student, teachers, torch.zeros(ROWS - 1, dtype=torch.int64))
    assert refused.value.code == "SR-M332"
    with pytest.raises(ValueError, match="temperature must be above 0"):
        CAMKD(temperature=0.0)
    with pytest.raises(ValueError, match="features must be at least 0"):
        CAMKD(features=-1.0)
