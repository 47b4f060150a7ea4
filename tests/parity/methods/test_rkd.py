"""RKD against the paper's equations, as loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of

from stillroom.methods import _relations
from stillroom.methods.rkd import RKD
from stillroom.types import Output


def huber(x, y):
    return 0.5 * (x - y) ** 2 if abs(x - y) <= 1 else abs(x - y) - 0.5


def distances(points):
    """Park et al. 2019, eq. 5: |x_i - x_j| / mu, mu the mean over pairs that are apart."""
    table = [[math.dist(a, b) for b in points] for a in points]
    apart = [d for row in table for d in row if d > 0]
    return [d / (sum(apart) / len(apart)) for row in table for d in row]


def angles(points):
    """Eq. 7: the cosine of the angle at j between i and k; 0 where a direction is missing."""
    found = []
    for middle in points:
        for first in points:
            for last in points:
                a = [x - y for x, y in zip(first, middle, strict=True)]
                b = [x - y for x, y in zip(last, middle, strict=True)]
                lengths = math.hypot(*a) * math.hypot(*b)
                found.append(sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0)
    return found


def naive(student, teacher):
    values = []
    for relation in (distances, angles):
        s, t = relation(student.tolist()), relation(teacher.tolist())
        values.append(sum(map(huber, s, t)) / len(s))
    return values


def method(**arguments):
    made = RKD(**arguments)
    made.bind_taps(("a",), ("b",))
    return made


def charge(made, student, teacher):
    batch = batch_of(len(student))
    return made.loss(Output(pred=student, taps={"a": student}), Output(pred=teacher, taps={"b": teacher}), batch, 0.0)


@pytest.mark.parametrize("spread", [1.0, 20.0])
def test_against_loops(spread):
    """With an outlier too, so that both branches of the Huber loss are met."""
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    student[0] *= spread
    distance, angle = naive(student, teacher)
    found = charge(method(), student, teacher)
    assert found["distance"].item() == pytest.approx(25 * distance, rel=1e-9)
    assert found["angle"].item() == pytest.approx(50 * angle, rel=1e-9)
    assert RKD.weight == 1.0


def test_maps_are_pooled_and_coefficients_multiply():
    torch.manual_seed(1)
    student, teacher = torch.randn(4, 3, 2, 2, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    distance, angle = naive(student.mean((2, 3)), teacher)
    found = charge(method(distance=2.0, angle=0.5), student, teacher)
    assert found["distance"].item() == pytest.approx(2 * distance, rel=1e-9)
    assert found["angle"].item() == pytest.approx(0.5 * angle, rel=1e-9)


def test_the_batch_is_that_of_all_processes(monkeypatch):
    """With the other process's rows gathered, half a batch costs what the whole does."""
    torch.manual_seed(2)
    student, teacher = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    whole = charge(method(), student, teacher)
    others = iter([student[3:], teacher[3:]])
    monkeypatch.setattr(_relations, "gather_rows", lambda x: torch.cat([x, next(others)]))
    half = charge(method(), student[:3], teacher[:3])
    assert all(torch.isclose(half[name], whole[name], rtol=1e-12) for name in whole)
