"""Hard distillation against the paper's equation, written as naive loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch

from stillroom.methods.hard import Hard, hard_loss
from stillroom.types import Batch, Output


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
    """techniques.md 25: equal to hand computation."""
    student, teacher = two(8, 10)
    assert hard_loss(student, teacher).item() == pytest.approx(naive(student.tolist(), teacher.tolist()), rel=1e-9)


def test_one_image_by_hand():
    """Student (0, 0), teacher's choice either: ln 2."""
    for teacher in ([[5.0, -1.0]], [[0.0, 0.1]]):
        assert hard_loss(torch.zeros(1, 2), torch.tensor(teacher)).item() == pytest.approx(math.log(2), rel=1e-6)


def test_the_method_on_pixels():
    student, teacher = two(2, 5, 3, 2)
    pixels = [
        [x[b, :, i, j].tolist() for b in range(2) for i in range(3) for j in range(2)] for x in (student, teacher)
    ]
    batch = Batch(images=torch.zeros(2, 1, 2, 2), target=torch.zeros(2), keys=torch.arange(2))
    found = Hard().loss(Output(pred=student), Output(pred=teacher), batch, 0.0)
    assert list(found) == ["ce"]
    assert found["ce"].item() == pytest.approx(naive(*pixels), rel=1e-9)
