"""Properties of DIST, whatever the numbers (techniques.md 8 and 9)."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.methods.dist import DIST, Correlation, dist_loss
from stillroom.types import Batch, Output

KINDS = get_args(Correlation)
kinds = st.sampled_from(KINDS)
shapes = st.tuples(st.integers(2, 6), st.integers(3, 9))
seeds = st.integers(0, 2**31)


def two(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=dtype) * 2 for _ in range(2))


def charged(method, student, teacher):
    batch = Batch(images=torch.zeros(len(student), 1, 2, 2), target=None, keys=torch.arange(len(student)))
    return method.loss(Output(pred=student), Output(pred=teacher), batch, 0.5)


@given(kinds, shapes, seeds)
def test_zero_at_equality_and_between_zero_and_two(kind, shape, seed):
    student, teacher = two(shape, seed)
    method = DIST(correlation=kind, reg=1e-4)
    p = student.softmax(1)
    if min((x - x.mean(1, keepdim=True)).square().sum(1).min() for x in (p, p.T)) > 1e-6:  # else 0 / 0 is guarded
        assert all(abs(value) <= 1e-9 for value in charged(method, student, student).values())
    assert all(-1e-12 <= value <= 2 for value in charged(method, student, teacher).values())
    assert charged(method, student, teacher)["inter"] > 1e-12 or kind == "spearman"


@given(shapes, seeds, st.floats(0.1, 10), st.floats(-10, 10))
def test_zero_for_a_line_through_the_teacher(shape, seed, a, b):
    """techniques.md 9: zero for student = a teacher + b, a > 0, to 1e-6; a < 0 costs 2."""
    _, teacher = two(shape, seed)
    for y in (teacher.softmax(1), teacher.softmax(1).T):
        if a * y.var(1).min() > 1e-8:
            assert abs(dist_loss(a * y + b, y)) <= 1e-6
            assert abs(dist_loss(b - a * y, y) - 2) <= 1e-6


@given(shapes, seeds)
@settings(max_examples=20)
def test_ranks_ignore_what_keeps_the_order(shape, seed):
    """techniques.md 8: the rank part sees the order alone, once soft ranks are whole."""
    student, _ = two(shape, seed)
    y = torch.stack([torch.randperm(shape[1]) for _ in range(shape[0])]).double()
    assert dist_loss(y**3, y, correlation="spearman", reg=0.5) <= 1e-9 < dist_loss(y**3, y)
    both = dist_loss(student, y, correlation="pearson+spearman", reg=0.5)
    each = (dist_loss(student, y, correlation=kind, reg=0.5) for kind in ("pearson", "spearman"))
    assert torch.isclose(both, sum(each) / 2, rtol=1e-12)


@given(kinds, seeds)
@settings(max_examples=20, deadline=None)
def test_per_pixel_equals_flattened(kind, seed):
    """techniques.md 9: [B, K, H, W] is [B * H * W, K], to 1e-6."""
    student, teacher = two((2, 5, 3, 4), seed)
    flat = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in (student, teacher)]
    method = DIST(correlation=kind)
    whole, rows = charged(method, student, teacher), charged(method, *flat)
    assert all(abs(whole[name] - rows[name]) <= 1e-6 for name in whole)


@given(kinds, shapes, seeds)
@settings(max_examples=30)
def test_the_order_of_classes_and_images_does_not_matter(kind, shape, seed):
    student, teacher = two(shape, seed)
    rows, columns = torch.randperm(shape[0]), torch.randperm(shape[1])
    method = DIST(correlation=kind)
    mixed = charged(method, student[rows][:, columns], teacher[rows][:, columns])
    for name, value in charged(method, student, teacher).items():
        assert torch.isclose(mixed[name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_and_no_image(kind):
    """techniques.md 9: at B = 1 the intra-class term is a number: 1, a correlation of single numbers being 0."""
    for images in (1, 0):
        student = torch.randn(images, 4, requires_grad=True)
        terms = charged(DIST(correlation=kind), student, torch.randn(images, 4))
        sum(terms.values()).backward()
        assert student.grad.isfinite().all() and student.grad.shape == (images, 4)
        if images:
            assert terms["inter"].isfinite() and terms["intra"] == 1
        else:
            assert terms["inter"] == 0 and terms["intra"].isfinite()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_near(kind, dtype):
    student, teacher = two((8, 10), 0, torch.float32)
    method = DIST(correlation=kind, reg=0.1)
    big = (student.to(dtype) * 5000).requires_grad_()
    total = sum(charged(method, big, teacher.to(dtype) * 5000).values())
    total.backward()
    assert total.isfinite() and big.grad.isfinite().all()
    near, exact = (sum(charged(method, s, t).values()) for s, t in ((student.to(dtype), teacher), (student, teacher)))
    assert near.item() == pytest.approx(exact.item(), rel=0.02)


@given(kinds, st.integers(0, 200))
@settings(max_examples=10, deadline=None)
def test_gradient(kind, seed):
    student, teacher = two((4, 5), seed)
    method = DIST(correlation=kind, reg=0.3)
    assert torch.autograd.gradcheck(
        lambda s: sum(charged(method, s, teacher).values()), student.requires_grad_(), eps=1e-8
    )


def test_standardised_ignores_scale_and_shift():
    student, teacher = two((6, 5), 0)
    method = DIST(standardised=True)
    a, b = charged(method, student, teacher), charged(method, 7 * student + 3, teacher / 5 - 2)
    assert all(torch.isclose(a[name], b[name], rtol=1e-5) for name in a)


def test_bad_values_are_named():
    for name, value in {"beta": -1.0, "gamma": -2.0, "temperature": 0.0, "reg": 0.0, "correlation": "kendall"}.items():
        with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
            DIST(**{name: value})
