"""The divergences against their definitions, written as naive loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of
from kit.naive import softmax

from stillroom.methods.divergence import Divergence, divergence_loss
from stillroom.types import Output


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def gjs(p, q, beta):
    """Agarwal et al. 2024, section 2: beta KL(p || m) + (1 - beta) KL(q || m)."""
    m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


NAIVE = {
    "kl": lambda p, q, beta: kl(p, q),
    "rkl": lambda p, q, beta: kl(q, p),
    "js": lambda p, q, beta: gjs(p, q, 0.5),
    "gjs": gjs,
    "tv": lambda p, q, beta: sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2,
    "hellinger": lambda p, q, beta: 1 - sum(math.sqrt(a * b) for a, b in zip(p, q, strict=True)),
}


def naive(student, teacher, kind, temperatures, beta):
    """T^2 D(teacher's, student's), T for tv, a mean over rows."""
    total = 0.0
    for z_s, z_t, temperature in zip(student, teacher, temperatures, strict=True):
        p, q = softmax(z_t, temperature), softmax(z_s, temperature)
        total += temperature ** (1 if kind == "tv" else 2) * NAIVE[kind](p, q, beta)
    return total / len(student)


def two(*shape):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=torch.float64) * 2, torch.randn(shape, dtype=torch.float64) * 2


@pytest.mark.parametrize("kind", NAIVE)
@pytest.mark.parametrize(("temperature", "beta"), [(0.5, 0.1), (1.0, 0.5), (4.0, 0.9)])
def test_the_loss(kind, temperature, beta):
    student, teacher = two(8, 10)
    expected = naive(student.tolist(), teacher.tolist(), kind, [temperature] * 8, beta)
    assert divergence_loss(student, teacher, kind, temperature, beta).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", NAIVE)
def test_a_temperature_for_each_row(kind):
    student, teacher = two(4, 6)
    heat = [0.5, 1.0, 4.0, 20.0]
    found = divergence_loss(student, teacher, kind, torch.tensor(heat, dtype=torch.float64)[:, None], 0.3)
    assert found.item() == pytest.approx(naive(student.tolist(), teacher.tolist(), kind, heat, 0.3), rel=1e-9)


@pytest.mark.parametrize("kind", NAIVE)
def test_the_method(kind):
    student, teacher = two(4, 7)
    batch = batch_of(4, torch.zeros(4))
    found = Divergence(kind=kind, beta=0.3).loss(Output(pred=student), Output(pred=teacher), batch, 0.0)[kind]
    expected = naive(student.tolist(), teacher.tolist(), kind, [4.0] * 4, 0.3)
    assert found.item() == pytest.approx(expected, rel=1e-9)
