"""Soft ranks and correlations, and what is special to the losses made of them: dist, lud."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.features import drawn
from kit.method_inputs import logit_terms
from scipy.stats import spearmanr

from stillroom.methods._ranks import pearson, soft_rank, spearman
from stillroom.methods.dist import DIST, Correlation, dist_loss
from stillroom.methods.lud import LUD, confidence_mask, lud_loss, spearman_relation

seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 12))
widths = st.floats(1e-3, 1e3)


@given(shapes, seeds, widths)
def test_ranks_sum_to_those_of_a_permutation_lie_between_them_and_keep_the_order(shape, seed, reg):
    """Blondel et al. 2020: the sum is n (n + 1) / 2; in float32 too."""
    n, x = shape[1], drawn(*shape, seed=seed)
    for dtype in (torch.float64, torch.float32):
        ranks = soft_rank(x.to(dtype), reg)
        assert (ranks.sum(1) - n * (n + 1) / 2).abs().max() <= (1e-5 if dtype == torch.float64 else 1e-4 * n)
        assert ranks.min() >= 1 - 1e-3 and ranks.max() <= n + 1e-3
    ranks = soft_rank(x, reg).gather(1, x.argsort(1))
    assert (ranks.diff(dim=1) >= -1e-9).all()


@given(shapes, seeds, widths, st.floats(0.1, 10), st.floats(-10, 10))
def test_ranks_under_shift_scale_order_and_sign(shape, seed, reg, scale, shift):
    x, order = drawn(*shape, seed=seed), torch.randperm(shape[1])
    ranks = soft_rank(x, reg)
    assert torch.allclose(soft_rank(x + shift, reg), ranks, atol=1e-6)
    assert torch.allclose(soft_rank(x * scale, reg * scale), ranks, atol=1e-6)
    assert torch.allclose(soft_rank(x[:, order], reg), ranks[:, order], atol=1e-9)
    assert torch.allclose(soft_rank(-x, reg), shape[1] + 1 - ranks, atol=1e-6)


@given(shapes, seeds)
def test_numbers_that_lie_apart_get_whole_ranks_and_equal_ones_their_mean(shape, seed):
    whole = torch.stack([torch.randperm(shape[1]) for _ in range(shape[0])]).double()
    assert torch.equal(soft_rank(whole, 0.9), whole + 1)
    assert torch.allclose(soft_rank(torch.zeros(shape).double(), 0.1), torch.full(shape, (shape[1] + 1) / 2).double())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reg", [0.3, 3.0])
def test_gradient_wherever_no_groups_are_about_to_part(seed, reg):
    x, y = (drawn(3, 6, seed=s).requires_grad_() for s in (seed, seed + 1000))
    assert torch.autograd.gradcheck(lambda x: soft_rank(x, reg), x, eps=1e-8)
    assert torch.autograd.gradcheck(lambda x, y: spearman(x, y, reg), (x, y), eps=1e-8)


@given(seeds)
def test_the_gap_to_the_exact_correlation_closes(seed):
    """Within 1e-3 at reg = 1e-3 without ties: no two numbers are nearer than 0.01. A large reg is Pearson's."""
    draw = torch.Generator().manual_seed(seed)
    x, y = (0.03 * torch.randperm(20, generator=draw) + 0.02 * torch.rand(20, generator=draw).double() for _ in "xy")
    exact = spearmanr(x.numpy(), y.numpy()).statistic
    gaps = [abs(spearman(x[None], y[None], reg).item() - exact) for reg in (1.0, 1e-1, 1e-3)]
    assert gaps[2] <= 1e-3 and gaps[2] <= gaps[1] + 1e-9
    assert abs(spearman(x[None], y[None], 0).item() - exact) <= 1e-12
    assert torch.allclose(spearman(x[None], y[None], 100), pearson(x[None], y[None]), atol=1e-9)


@given(seeds, st.floats(0.1, 10), st.floats(-10, 10))
def test_correlations_are_between_minus_one_and_one_and_ignore_scale(seed, scale, shift):
    x, y = drawn(4, 9, seed=seed), drawn(4, 9, seed=seed + 1)
    assert (pearson(x, y).abs() <= 1 + 1e-12).all()
    assert torch.allclose(pearson(scale * x + shift, y), pearson(x, y), atol=1e-9)
    assert torch.allclose(pearson(x, -scale * x), -torch.ones(4).double(), atol=1e-9)
    assert torch.allclose(spearman(x, x, 0.1), torch.ones(4).double(), atol=1e-9)


def test_rows_without_spread_correlate_with_nothing():
    flat = torch.zeros(2, 5, requires_grad=True)
    for rho in (pearson(flat, torch.randn(2, 5)), spearman(flat, torch.randn(2, 5), 0.1)):
        (grad,) = torch.autograd.grad(rho.sum(), flat)
        assert rho.tolist() == [0, 0] and grad.isfinite().all()
    assert spearman(flat.detach(), torch.randn(2, 5), 0).tolist() == [0, 0]


def test_numbers_that_are_none_stay_so_and_no_row_is_no_row():
    """A student that diverged is found by the loop."""
    assert soft_rank(torch.tensor([[1.0, float("nan"), 2.0]]), 1.0).isnan().any()
    assert soft_rank(torch.zeros(0, 4), 1.0).shape == (0, 4)


@given(seeds, st.floats(0.1, 10), st.floats(-10, 10))
def test_dist_is_zero_for_a_line_through_the_teacher_and_two_for_its_mirror(seed, a, b):
    """Huang et al. 2022: zero for student = a teacher + b, a > 0, to 1e-6."""
    teacher = 2 * drawn(4, 7, seed=seed)
    for y in (teacher.softmax(1), teacher.softmax(1).T):
        if a * y.var(1).min() > 1e-8:
            assert abs(dist_loss(a * y + b, y)) <= 1e-6
            assert abs(dist_loss(b - a * y, y) - 2) <= 1e-6


@given(seeds)
def test_dist_s_ranks_ignore_what_keeps_the_order(seed):
    """Once soft ranks are whole; and the two correlations together are their mean."""
    student, y = drawn(4, 7, seed=seed), torch.stack([torch.randperm(7) for _ in range(4)]).double()
    assert dist_loss(y**3, y, correlation="spearman", reg=0.5) <= 1e-9 < dist_loss(y**3, y)
    both, *each = (
        dist_loss(student, y, correlation=kind, reg=0.5) for kind in ("pearson+spearman", "pearson", "spearman")
    )
    assert torch.isclose(both, sum(each) / 2, rtol=1e-12)


@pytest.mark.parametrize("kind", get_args(Correlation))
def test_dist_of_one_image_and_of_none(kind):
    """At B = 1 the intra-class term is 1, a correlation of single numbers being 0."""
    one = logit_terms(DIST(correlation=kind), torch.randn(1, 4), torch.randn(1, 4))
    assert one["inter"].isfinite() and one["intra"] == 1
    none = logit_terms(DIST(correlation=kind), torch.randn(0, 4), torch.randn(0, 4))
    assert none["inter"] == 0 and none["intra"].isfinite()


@given(seeds)
def test_lud_s_whole_ranks_ignore_any_increasing_map(seed):
    """Of the student's matrix or the teacher's."""
    p, q = (3 * drawn(6, 5, seed=s) for s in (seed, seed + 1))
    p, q = p.softmax(1), q.softmax(1)
    for s, t in ((p.T @ p, q.T @ q), (p @ p.T, q @ q.T)):
        loss = spearman_relation(s, t, 0)
        for f in (torch.exp, torch.sqrt, lambda x: 7 * x - 3, lambda x: x**3 + x):
            assert abs(spearman_relation(f(s), t, 0) - loss) <= 1e-12
            assert abs(spearman_relation(s, f(t), 0) - loss) <= 1e-12


@given(st.integers(1, 65), seeds)
def test_lud_s_mask_keeps_half(images, seed):
    """Exactly floor(B / 2), those that the teacher is surest of."""
    teacher = 3 * drawn(images, 10, seed=seed)
    mask, sure = confidence_mask(teacher), teacher.softmax(1).amax(1)
    assert mask.sum() == images // 2
    assert not mask.any() or sure[mask].min() > sure[~mask].max()


def test_where_lud_finds_all_equally_sure_all_are_kept():
    """A teacher whose probabilities are 1 to the last bit leaves no image above the median."""
    teacher = 1e4 * torch.eye(4, dtype=torch.float64)
    assert not confidence_mask(teacher).any()
    student = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    sum(lud_loss(student, teacher)).backward()
    assert (student.grad.abs().sum(1) > 0).all()


def test_what_an_unsure_teacher_gives_does_not_matter_to_lud():
    """Random logits on the less confident half leave the gradient unchanged to 1e-7; without the mask they change it.

    The random logits are small, so that this half stays the less confident one.
    """
    student, teacher = 3 * drawn(32, 10), 3 * drawn(32, 10, seed=1)
    unsure = ~confidence_mask(teacher)
    corrupt = teacher.clone()
    corrupt[unsure] = 0.1 * drawn(16, 10, seed=9)

    def gradients(loss):
        return [torch.autograd.grad(loss(s := student.clone().requires_grad_(), t), s)[0] for t in (teacher, corrupt)]

    def everything(s, t):
        p, q = s.softmax(1), t.softmax(1)
        return spearman_relation(p @ p.T, q @ q.T, 0.01)

    masked, unmasked = gradients(lambda s, t: sum(lud_loss(s, t))), gradients(everything)
    assert (masked[0] - masked[1]).abs().max() <= 1e-7 < masked[0].abs().max() and not masked[0][unsure].any()
    assert (unmasked[0] - unmasked[1]).abs().max() > 1e-4


def test_every_kept_image_of_a_usual_batch_has_a_gradient_from_lud():
    """Soft ranks that were whole would have none: with reg = 0.01 all 64 have one. Few images cost a finite sum."""
    student, teacher = 3 * drawn(128, 10, dtype=torch.float32), 3 * drawn(128, 10, seed=1, dtype=torch.float32)
    for value in logit_terms(LUD(), student.requires_grad_(), teacher).values():
        (grad,) = torch.autograd.grad(value, student, retain_graph=True)
        assert (grad.abs().sum(1) > 0).sum() == 64 and grad.isfinite().all()
    for images in (0, 1, 2):
        terms = logit_terms(LUD(), student[:images], teacher[:images])
        assert all(value.isfinite() for value in terms.values()) and (images or not any(terms.values()))
