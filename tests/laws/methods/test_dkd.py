"""Properties of DKD, whatever the numbers (techniques.md 10)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.errors import StillroomError
from stillroom.methods.dkd import DKD, dkd_loss
from stillroom.methods.hinton import hinton_loss
from stillroom.types import Batch, Output

shapes = st.tuples(st.integers(1, 6), st.integers(2, 9))
temperatures = st.floats(0.5, 20)
seeds = st.integers(0, 2**31)


def drawn(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=dtype) * 3 for _ in range(2))
    return student, teacher, torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)


def parts(student, teacher, target, temperature, alpha=1.0, beta=1.0):
    return dkd_loss(student, teacher, target, alpha=alpha, beta=beta, temperature=temperature)


def charged(method, student, teacher, target):
    batch = Batch(images=torch.zeros(len(student), 1, 2, 2), target=target, keys=torch.arange(len(student)))
    return method.loss(Output(pred=student), Output(pred=teacher), batch, 0.5)


@given(shapes, seeds, temperatures)
def test_zero_at_equality_and_never_below(shape, seed, temperature):
    student, teacher, target = drawn(shape, seed)
    for part in parts(student, student, target, temperature):
        assert abs(part) <= 1e-12 * temperature**2
    sure, rest = parts(student, teacher, target, temperature)
    assert sure >= -1e-12 and (rest > 1e-12 if shape[1] > 2 else rest == 0)


@pytest.mark.parametrize(("dtype", "gate"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_hinton_is_a_mixture_of_the_two_parts(dtype, gate):
    """techniques.md 10: KL = KL(b_t || b_s) + (1 - p_t) KL(q_t || q_s) on 64 x 10; gate 1e-6 in float32.

    Row by row, with alpha = 1 and beta = 1 - p_t: the loss is then Hinton's.
    """
    student, teacher, target = drawn((64, 10), 0, dtype)
    hidden = 1 - teacher.softmax(1).gather(1, target[:, None])
    for i in range(64):
        row = slice(i, i + 1)
        one = parts(student[row], teacher[row], target[row], 1.0, beta=hidden[i].item())
        assert abs(sum(one) - hinton_loss(student[row], teacher[row], 1.0)) <= gate * max(1, sum(one))


@given(shapes, seeds, temperatures)
def test_at_any_temperature_too(shape, seed, temperature):
    student, teacher, target = drawn((1, *shape[1:]), seed)
    hidden = 1 - (teacher / temperature).softmax(1)[0, target[0]].item()
    found = sum(parts(student, teacher, target, temperature, beta=hidden))
    assert torch.isclose(found, hinton_loss(student, teacher, temperature), rtol=1e-10, atol=1e-12)


@given(shapes, seeds, temperatures, st.floats(-50, 50))
def test_shifts_and_orders_change_nothing(shape, seed, temperature, constant):
    student, teacher, target = drawn(shape, seed)
    rows, classes = torch.randperm(shape[0]), torch.randperm(shape[1])
    mixed = (x[rows][:, classes] + constant for x in (student, teacher))
    moved = parts(*mixed, classes.argsort()[target[rows]], temperature)
    for a, b in zip(moved, parts(student, teacher, target, temperature), strict=True):
        assert torch.isclose(a, b, rtol=1e-8, atol=1e-10)


@given(seeds)
@settings(max_examples=10)
def test_the_weights_multiply(seed):
    student, teacher, target = drawn((4, 5), seed)
    sure, rest = parts(student, teacher, target, 4.0)
    assert torch.allclose(
        torch.stack(parts(student, teacher, target, 4.0, 2.0, 8.0)), torch.stack([2 * sure, 8 * rest]), rtol=1e-14
    )


@given(seeds)
@settings(max_examples=10)
def test_per_pixel_is_the_mean_over_pixels_and_unlabelled_ones_are_left_out(seed):
    student, teacher, target = drawn((2, 5, 3, 4), seed)
    target = torch.randint(5, (2, 3, 4))
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    whole = charged(DKD(), student, teacher, target)
    assert torch.isclose(whole["nckd"], parts(*flat, target.flatten(), 4.0, beta=8.0)[1], rtol=1e-12)
    kept = torch.rand(2, 3, 4) < 0.5
    some = charged(DKD(), student, teacher, torch.where(kept, target, -1))
    expected = parts(*(x[kept.flatten()] for x in flat), target[kept], 4.0)[0]
    assert torch.isclose(some["tckd"], expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    """techniques.md 10: no NaN in fp16, where the -1000 mask makes one (1000 x 60000 is beyond its range)."""
    student, teacher, target = drawn((8, 10), 0, torch.float32)
    for scale in (1, 5000):
        big = (student.to(dtype) * scale).requires_grad_()
        total = sum(parts(big, teacher.to(dtype) * scale, target, 4.0))
        total.backward()
        assert total.isfinite() and big.grad.isfinite().all()
    near = sum(parts(student.to(dtype), teacher.to(dtype), target, 4.0))
    assert near.item() == pytest.approx(sum(parts(student, teacher, target, 4.0)).item(), rel=0.02)


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_gradient(seed):
    student, teacher, target = drawn((3, 4), seed)
    assert torch.autograd.gradcheck(lambda s: sum(parts(s, teacher, target, 4.0, 1.0, 8.0)), student.requires_grad_())


def test_one_image_no_image_and_no_label():
    for images in (1, 0):
        student = torch.randn(images, 4, requires_grad=True)
        terms = charged(DKD(), student, torch.randn(images, 4), torch.zeros(images, dtype=torch.long))
        sum(terms.values()).backward()
        assert all(value.isfinite() for value in terms.values()) and student.grad.shape == (images, 4)
    terms = charged(DKD(), torch.randn(3, 4), torch.randn(3, 4), torch.full((3,), -1))
    assert [value.item() for value in terms.values()] == [0, 0]


def test_two_classes_have_one_part():
    student, teacher, target = drawn((4, 2), 0)
    terms = charged(DKD(), student, teacher, target)
    assert list(terms) == ["tckd"]
    assert torch.isclose(terms["tckd"], hinton_loss(student, teacher, 4.0))


@pytest.mark.parametrize("policy", ["constant", "cosine", "learned", "adaptive", "max_logit"])
def test_takes_any_temperature_policy(policy):
    student, teacher, target = drawn((6, 5), 0)
    method, fixed = DKD(policy=policy, lowest=1.0).double(), DKD()
    terms = charged(method, student.requires_grad_(), teacher, target)
    sum(terms.values()).backward()
    assert student.grad.abs().sum() > 0 and all(p.grad is not None for p in method.parameters())
    if policy == "constant":
        assert all(torch.equal(terms[name], value) for name, value in charged(fixed, student, teacher, target).items())
    else:
        assert not torch.isclose(terms["nckd"], charged(fixed, student, teacher, target)["nckd"])


def test_standardised_ignores_scale_and_shift():
    student, teacher, target = drawn((6, 5), 0)
    method = DKD(standardised=True)
    a, b = charged(method, student, teacher, target), charged(method, 7 * student + 3, teacher / 5 - 2, target)
    assert all(torch.isclose(a[name], b[name], rtol=1e-5) for name in a)


def test_bad_values_are_named():
    for arguments in ({"alpha": -1}, {"beta": -0.5}, {"temperature": 0}, {"lowest": -1}, {"policy": "warm"}):
        ((name, value),) = arguments.items()
        with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
            DKD(**arguments)
    with pytest.raises(StillroomError, match="SR-M332"):
        charged(DKD(), torch.randn(3, 4), torch.randn(3, 4), torch.rand(3))
