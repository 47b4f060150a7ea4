"""Correlation congruence against the paper's equations, as loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from kit.features import charge, ready

from stillroom.methods import _relations
from stillroom.methods.cc import CC


def kernels(points, gamma, order):
    """Peng et al. 2019, section 3.3: the Gaussian kernel of unit vectors as a series in their product."""
    found = []
    for a in points:
        for b in points:
            dot = sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
            terms = [(2 * gamma) ** p / math.factorial(p) * dot**p for p in range(order + 1)]
            found.append(math.exp(-2 * gamma) * sum(terms))
    return found


def naive(student, teacher, gamma=0.4, order=2):
    pairs = zip(kernels(student, gamma, order), kernels(teacher, gamma, order), strict=True)
    return sum((s - t) ** 2 for s, t in pairs) / len(student) ** 2


def embedded(method, rows):
    """The linear layer as loops."""
    weight, bias = method.embed[0].weight.tolist(), method.embed[0].bias.tolist()
    return [
        [b + sum(w * x for w, x in zip(ws, row, strict=True)) for ws, b in zip(weight, bias, strict=True)]
        for row in rows
    ]


@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (1.5, 3)])
def test_against_loops(gamma, order):
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3, 2, 2, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    method = ready(CC(gamma=gamma, order=order), [student], [teacher])
    expected = naive(embedded(method, student.mean((2, 3)).tolist()), teacher.tolist(), gamma, order)
    assert charge(method, [student], [teacher]).item() == pytest.approx(expected, rel=1e-9)
    assert method.embed[0].weight.shape == (4, 3)


def test_the_batch_is_that_of_all_processes(monkeypatch):
    """With the other process's rows gathered, half a batch costs what the whole does."""
    torch.manual_seed(2)
    student, teacher = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    method = ready(CC(), [student], [teacher])
    whole = charge(method, [student], [teacher]).item()
    others = iter([student[3:], teacher[3:]])
    monkeypatch.setattr(_relations, "gather_rows", lambda x: torch.cat([x, next(others)]))
    assert charge(method, [student[:3]], [teacher[:3]]).item() == pytest.approx(whole, rel=1e-12)
