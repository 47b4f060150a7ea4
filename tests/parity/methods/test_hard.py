"""Hard distillation against the paper's equation, written as naive loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of
from kit.naive import pixels

from stillroom.methods.hard import Hard, hard_loss
from stillroom.types import Output


def naive(student, teacher):
    """-log psi(Z_s)[y_t], y_t = argmax_c Z_t(c), mean over images: Touvron et al. 2021, eq. 3, its second half."""
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        chosen = z_t.index(max(z_t))
        total += math.log(sum(math.exp(z) for z in z_s)) - z_s[chosen]
    return total / len(student)


def two(*shape):
    torch.manual_seed(0)
    return torch.randn(shape, dtype=torch.float64) * 2, torch.randn(shape, dtype=torch.float64) * 2


def test_the_loss():
    """Equal to hand computation."""
    student, teacher = two(8, 10)
    assert hard_loss(student, teacher).item() == pytest.approx(naive(student.tolist(), teacher.tolist()), rel=1e-9)


def test_one_image_by_hand():
    """Student (0, 0), teacher's choice either: ln 2."""
    for teacher in ([[5.0, -1.0]], [[0.0, 0.1]]):
        assert hard_loss(torch.zeros(1, 2), torch.tensor(teacher)).item() == pytest.approx(math.log(2), rel=1e-6)


def test_the_method_on_pixels():
    student, teacher = two(2, 5, 3, 2)
    batch = batch_of(2, torch.zeros(2))
    found = Hard().loss(Output(pred=student), Output(pred=teacher), batch, 0.0)
    assert list(found) == ["ce"]
    assert found["ce"].item() == pytest.approx(naive(pixels(student), pixels(teacher)), rel=1e-9)
