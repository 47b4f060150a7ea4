"""PKT against the paper's equations, as loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from kit.features import charge, ready
from scipy.spatial.distance import cosine

from stillroom.methods import _relations
from stillroom.methods.pkt import PKT


def neighbours(points, kernel):
    table = [[kernel((2 - cosine(a, b)) / 2) for b in points] for a in points]
    return [[value / sum(row) for value in row] for row in table]


def naive(student, teacher, *, kernel, inside=0.0):
    """Passalis and Tefas 2018, eqs. 3 to 6 with the cosine kernel: the mean of p log(p / q) over all pairs."""
    total = 0.0
    q, p = neighbours(student.tolist(), kernel), neighbours(teacher.tolist(), kernel)
    for p_row, q_row in zip(p, q, strict=True):
        total += sum(t * math.log((t + inside) / (s + inside)) for t, s in zip(p_row, q_row, strict=True))
    return total / len(student) ** 2


def cost(student, teacher):
    return charge(ready(PKT(), [student], [teacher]), [student], [teacher]).item()


def test_against_loops():
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    expected = naive(student, teacher, kernel=lambda k: k + 1e-7)
    assert cost(student, teacher) == pytest.approx(expected, rel=1e-9)
    assert cost(student[:, :, None, None].expand(-1, -1, 2, 2), teacher) == pytest.approx(expected, rel=1e-9)
    assert PKT.weight == 30000


def test_as_the_authors_have_it():
    """With 1e-7 inside the logarithm instead of added to the kernel: the same to 2e-4 at a batch of 64."""
    torch.manual_seed(1)
    student, teacher = torch.randn(64, 3, dtype=torch.float64), torch.randn(64, 5, dtype=torch.float64)
    expected = naive(student, teacher, kernel=lambda k: k, inside=1e-7)
    assert cost(student, teacher) == pytest.approx(expected, rel=2e-4)


def test_the_batch_is_that_of_all_processes(monkeypatch):
    """With the other process's rows gathered, half a batch costs what the whole does."""
    torch.manual_seed(2)
    student, teacher = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    whole = cost(student, teacher)
    others = iter([student[3:], teacher[3:]])
    monkeypatch.setattr(_relations, "gather_rows", lambda x: torch.cat([x, next(others)]))
    assert cost(student[:3], teacher[:3]) == pytest.approx(whole, rel=1e-12)
