"""Properties of the temperature policies, whatever the numbers."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from kit.features import drawn
from kit.method_inputs import logit_terms

from stillroom.methods._temperature import Policy, agreement, temperature_of, warmth
from stillroom.methods.hinton import Hinton, hinton_loss

POLICIES = get_args(Policy)
policies = st.sampled_from(POLICIES)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 9))
seeds = st.integers(0, 2**31)
shares = st.floats(0, 1)
lows, spans = st.floats(0.1, 5), st.floats(0, 20)
FULL = 1 + 3 * (1 - 1 / math.e)  # of `adaptive` between 1 and 4, where both rank alike


def two(shape, seed=0, dtype=torch.float64):
    return 3 * drawn(*shape, seed=seed, dtype=dtype), 3 * drawn(*shape, seed=seed + 1, dtype=dtype)


def kl(method, student, teacher, progress=0.5):
    return logit_terms(method, student, teacher, progress=progress)["kl"]


@given(policies, shapes, seeds, shares, lows, spans, st.sampled_from([torch.float32, torch.float64]))
def test_above_zero_finite_and_between_the_bounds(policy, shape, seed, progress, lowest, span, dtype):
    student, teacher = two(shape, seed, dtype)
    heat = temperature_of(policy, lowest + span, lowest)(student, teacher, progress)
    assert heat.isfinite().all() and (heat > 0).all()
    assert (heat >= lowest * (1 - 1e-6)).all() and (heat <= (lowest + span) * (1 + 1e-6)).all()
    assert heat.dtype == dtype and heat.shape in ((), (shape[0], 1))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("rows", [torch.zeros(2, 5), torch.full((2, 5), 1e30), torch.tensor([[1e4] + [-1e4] * 4] * 2)])
def test_rows_with_nothing_to_read_and_rows_with_too_much(policy, rows):
    heat = temperature_of(policy, 4.0, 1.0)(rows, rows, 0.5)
    assert heat.isfinite().all() and (heat >= 1).all() and (heat <= 4).all()


@given(shapes, seeds, shares, st.floats(0.1, 50), st.sampled_from([torch.float32, torch.float64]))
def test_constant_is_the_fixed_temperature_to_the_last_bit(shape, seed, progress, temperature, dtype):
    student, teacher = two(shape, seed, dtype)
    heat = temperature_of("constant", temperature, 1.0)(student, teacher, progress)
    assert torch.equal(student / heat, student / temperature)
    found = kl(Hinton(temperature=temperature), student, teacher, progress)
    assert torch.equal(found, hinton_loss(student, teacher, temperature))


def test_constant_may_be_below_the_lowest_that_it_does_not_use():
    assert temperature_of("constant", 0.5, 1.0)(torch.zeros(2, 3), torch.zeros(2, 3), 0.5) == 0.5


def test_cosine_falls_from_the_highest_to_the_lowest():
    policy, rows = temperature_of("cosine", 8.0, 2.0), torch.zeros(2, 3, dtype=torch.float64)
    found = [policy(rows, rows, step / 100).item() for step in range(101)]
    assert found[0] == 8 and found[50] == pytest.approx(5, abs=1e-12) and found[100] == 2
    assert all(later < before for before, later in itertools.pairwise(found))


@given(seeds, shares)
def test_learned_climbs_where_the_student_descends(seed, progress):
    """Li et al. 2023: x's gradient is the loss's slope times -(1 - cos(pi min(24 progress, 1))) / 2."""
    student, teacher = two((4, 6), seed)
    student.requires_grad_()
    method = Hinton(temperature=10.0, policy="learned").double()
    kl(method, student, teacher, progress).backward()

    x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    slope, wanted = torch.autograd.grad(hinton_loss(student, teacher, 1 + 9 * x.sigmoid()), [x, student])
    strength = (1 - math.cos(math.pi * min(24 * progress, 1))) / 2
    assert torch.isclose(method.thermostat.x.grad, -strength * slope, rtol=1e-9, atol=1e-12)
    assert torch.allclose(student.grad, wanted, rtol=1e-9, atol=1e-12)


def test_learned_makes_the_loss_larger_when_trained():
    student, teacher = two((16, 10))
    method = Hinton(temperature=4.0, policy="learned").double()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    found = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = kl(method, student, teacher)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] > found[0] + 0.05
    assert all(after >= before for before, after in itertools.pairwise(found))


def test_learned_stands_still_at_the_first_step_and_is_saved():
    method = Hinton(policy="learned")
    assert [name for name, _ in method.named_parameters()] == list(method.state_dict()) == ["thermostat.x"]
    kl(method, torch.randn(2, 3), torch.randn(2, 3), progress=0.0).backward()
    assert method.thermostat.x.grad == 0


@pytest.mark.parametrize("policy", sorted({*POLICIES} - {"learned"}))
def test_nothing_else_is_learned(policy):
    student, teacher = (x.requires_grad_() for x in two((3, 4)))
    policy = temperature_of(policy, 4.0, 1.0)
    assert not list(policy.parameters()) and not policy(student, teacher, 0.5).requires_grad


def test_adaptive_stays_between_its_bounds_for_any_correlation():
    """10^4 random rho in -1..1. As Guo et al. 2024 print it, T is -4.16 at rho = -1 for bounds 1 and 4."""
    rho = torch.rand(10_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    heat = warmth(rho, 4.0, 1.0)
    assert (heat >= 1).all() and (heat <= 4).all() and (heat[rho <= 0] == 1).all()
    assert torch.allclose(heat[rho > 0], 1 + 3 * (1 - (-rho[rho > 0]).exp()), rtol=1e-12)
    ends = warmth(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), 4.0, 1.0).tolist()
    assert ends == pytest.approx([1, 1, FULL], rel=1e-12)


@given(st.integers(1, 6), st.integers(2, 9), seeds)
def test_adaptive_reads_only_the_order_of_the_classes(images, classes, seed):
    student, teacher = two((images, classes), seed)
    policy = temperature_of("adaptive", 4.0, 1.0)
    heat = policy(student, teacher, 0.5)
    assert torch.equal(policy(student.exp(), teacher**3, 0.5), heat)
    columns = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(policy(student[:, columns], teacher[:, columns], 0.5), heat, rtol=1e-12)
    for like in (student, 2 * student):
        assert torch.allclose(policy(student, like, 0.5), torch.full_like(heat, FULL), rtol=1e-12)
    assert (policy(student, -student, 0.5) == 1).all()


@given(st.integers(1, 6), st.integers(2, 9), seeds)
def test_agreement_is_symmetric_and_one_with_itself(images, classes, seed):
    student, teacher = two((images, classes), seed)
    rho = agreement(student, teacher)
    assert torch.equal(rho, agreement(teacher, student)) and (rho.abs() <= 1 + 1e-12).all()
    ones = torch.ones(images, 1, dtype=torch.float64)
    assert torch.allclose(agreement(student, student), ones) and torch.allclose(agreement(student, -student), -ones)


def test_agreement_of_a_flat_row_is_zero():
    flat = torch.zeros(1, 4)
    assert agreement(flat, torch.randn(1, 4)) == 0 and agreement(flat, flat) == 0
    one_apart = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    assert agreement(one_apart, one_apart) == pytest.approx(1)


@given(st.integers(2, 9), seeds, st.floats(0.5, 20), st.floats(-30, 30))
def test_max_logit_brings_every_teacher_to_one_height(classes, seed, scale, shift):
    """The largest centred logit over T is 1 between the bounds, so that the targets keep when the teacher is scaled."""
    student, teacher = two((4, classes), seed)
    assume((teacher.amax(1) - teacher.mean(1)).min() > 1e-2)
    policy = temperature_of("max_logit", 1e4, 1e-4)
    heat, moved = policy(student, teacher, 0.5), policy(student, teacher * scale + shift, 0.5)
    tall = ((teacher - teacher.mean(1, keepdim=True)) / heat).amax(1)
    assert torch.allclose(tall, torch.ones_like(tall), rtol=1e-9)
    assert torch.allclose((teacher / heat).softmax(1), ((teacher * scale + shift) / moved).softmax(1), rtol=1e-6)
