"""Properties of LUD, whatever the numbers (techniques.md 6; 0.1, no. 7)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.methods._temperature import correlation_temperature
from stillroom.methods.lud import LUD, confidence_mask, lud_loss, spearman_relation
from stillroom.types import Batch, Output

shapes = st.tuples(st.integers(4, 16), st.integers(3, 9))
seeds = st.integers(0, 2**31)


def two(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=dtype) * 3 for _ in range(2))


def charged(method, student, teacher):
    batch = Batch(images=torch.zeros(len(student), 1, 2, 2), target=None, keys=torch.arange(len(student)))
    return method.loss(Output(pred=student), Output(pred=teacher), batch, 0.5)


@given(shapes, seeds)
@settings(deadline=None)
def test_zero_at_equality_and_between_zero_and_two(shape, seed):
    """techniques.md 6: 0 for student = teacher, to 1e-3 with soft ranks, exactly with whole ones."""
    student, teacher = two(shape, seed)
    assert all(abs(part) <= 1e-3 for part in lud_loss(teacher, teacher))
    assert all(abs(part) <= 1e-12 for part in lud_loss(teacher, teacher, reg=0))
    assert all(-1e-12 <= part <= 2 for part in (*lud_loss(student, teacher), *lud_loss(student, teacher, reg=0)))


@given(shapes, seeds)
@settings(deadline=None)
def test_whole_ranks_ignore_any_increasing_map(shape, seed):
    """techniques.md 6: the hard-rank loss is invariant to any strictly increasing map of the student's matrix."""
    p, q = (z.softmax(1) for z in two(shape, seed))
    for s, t in ((p.T @ p, q.T @ q), (p @ p.T, q @ q.T)):
        loss = spearman_relation(s, t, 0)
        for f in (torch.exp, torch.sqrt, lambda x: 7 * x - 3, lambda x: x**3 + x):
            assert abs(spearman_relation(f(s), t, 0) - loss) <= 1e-12
            assert abs(spearman_relation(s, f(t), 0) - loss) <= 1e-12


@given(st.integers(1, 65), seeds)
def test_the_mask_keeps_half(images, seed):
    """techniques.md 6: exactly floor(B / 2), those that the teacher is surest of."""
    teacher, _ = two((images, 10), seed)
    mask, sure = confidence_mask(teacher), teacher.softmax(1).amax(1)
    assert mask.sum() == images // 2
    assert not mask.any() or sure[mask].min() > sure[~mask].max()


def test_where_all_are_equally_sure_all_are_kept():
    """A teacher whose probabilities are 1 to the last bit leaves no image above the median."""
    teacher = 1e4 * torch.eye(4, dtype=torch.float64)
    assert not confidence_mask(teacher).any()
    student = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    sum(lud_loss(student, teacher)).backward()
    assert (student.grad.abs().sum(1) > 0).all()


def test_the_temperature_stays_in_its_range():
    """techniques.md 6 and 0.1, no. 7: T in 1..4 for 10^4 random rho in -1..1; as printed, rho = -1 gives -4.16."""
    rho = 2 * torch.rand(10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    found = correlation_temperature(torch.cat([rho, torch.tensor([-1.0, 0.0, 1.0])]), 4.0, 1.0)
    assert found.min() == 1 and found.max() <= 4 and found.max() == pytest.approx(1 + 3 * (1 - 2.718281828**-1))
    printed = 1 + 3 * (1 - torch.exp(torch.tensor(1.0)))
    assert printed.item() == pytest.approx(-4.16, abs=0.01)


def test_what_an_unsure_teacher_says_does_not_matter():
    """techniques.md 6: random logits on the less confident half leave the gradient unchanged (<= 1e-7).

    Without the mask they change it. The random logits are small, so that this half stays the less confident one.
    """
    student, teacher = two((32, 10), 0)
    corrupt = teacher.clone()
    unsure = ~confidence_mask(teacher)
    corrupt[unsure] = 0.1 * torch.randn(16, 10, generator=torch.Generator().manual_seed(9)).double()

    def gradients(loss):
        return [torch.autograd.grad(loss(s := student.clone().requires_grad_(), t), s)[0] for t in (teacher, corrupt)]

    masked = gradients(lambda s, t: sum(lud_loss(s, t)))
    assert (masked[0] - masked[1]).abs().max() <= 1e-7 < masked[0].abs().max() and not masked[0][unsure].any()

    def everything(s, t):
        p, q = s.softmax(1), t.softmax(1)
        return spearman_relation(p @ p.T, q @ q.T, 0.01)

    unmasked = gradients(everything)
    assert (unmasked[0] - unmasked[1]).abs().max() > 1e-4


@given(shapes, seeds)
@settings(max_examples=20, deadline=None)
def test_the_order_of_classes_and_images_does_not_matter(shape, seed):
    student, teacher = two(shape, seed)
    rows, columns = torch.randperm(shape[0]), torch.randperm(shape[1])
    mixed = lud_loss(student[rows][:, columns], teacher[rows][:, columns])
    for a, b in zip(mixed, lud_loss(student, teacher), strict=True):
        assert torch.isclose(a, b, rtol=1e-6, atol=1e-9)


def test_a_batch_of_usual_size_is_taught_everywhere():
    """Soft ranks that were whole would have no gradient: with reg = 0.01 every kept image has one."""
    student, teacher = two((128, 10), 0, torch.float32)
    student = student.requires_grad_()
    terms = charged(LUD(), student, teacher)
    for value in terms.values():
        (grad,) = torch.autograd.grad(value, student, retain_graph=True)
        assert (grad.abs().sum(1) > 0).sum() == 64 and grad.isfinite().all()


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_per_pixel_equals_flattened(seed):
    student, teacher = two((2, 5, 3, 4), seed)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    whole, rows = charged(LUD(), student, teacher), charged(LUD(), *flat)
    assert all(abs(whole[name] - rows[name]) <= 1e-9 for name in whole)


@given(st.integers(0, 200))
@settings(max_examples=5, deadline=None)
def test_gradient(seed):
    student, teacher = two((6, 4), seed)
    assert torch.autograd.gradcheck(
        lambda s: sum(lud_loss(s, teacher, reg=0.03)), student.requires_grad_(), eps=1e-8, atol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(dtype):
    student, teacher = two((16, 10), 0, torch.float32)
    big = (student.to(dtype) * 5000).requires_grad_()
    total = sum(lud_loss(big, teacher.to(dtype) * 5000))
    total.backward()
    assert total.isfinite() and big.grad.isfinite().all()
    exact = sum(lud_loss(student.to(dtype).double(), teacher.to(dtype).double(), reg=0.1))
    assert sum(lud_loss(student.to(dtype), teacher.to(dtype), reg=0.1)).item() == pytest.approx(exact.item(), rel=1e-3)
    with torch.autocast("cpu", dtype):
        cast = sum(lud_loss(student.to(dtype), teacher.to(dtype), reg=0.1))
    assert cast.item() == pytest.approx(exact.item(), rel=1e-3)


@pytest.mark.parametrize("images", [0, 1, 2])
def test_few_images(images):
    student = torch.randn(images, 4, requires_grad=True)
    terms = charged(LUD(), student, torch.randn(images, 4))
    sum(terms.values()).backward()
    assert all(value.isfinite() for value in terms.values()) and student.grad.isfinite().all()
    assert images or not any(terms.values())


def test_standardised_ignores_scale_and_shift():
    student, teacher = two((8, 5), 0)
    method = LUD(standardised=True)
    a, b = charged(method, student, teacher), charged(method, 7 * student + 3, teacher / 5 - 2)
    assert all(torch.isclose(a[name], b[name], rtol=1e-4) for name in a)


def test_bad_values_are_named():
    wrong = {"category": -1.0, "sample": -2.0, "temperature": 0.0, "lowest": 5.0, "reg": 0.0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
            LUD(**{name: value})
