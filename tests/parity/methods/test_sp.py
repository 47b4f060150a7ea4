"""SP against the paper's equations, as loops in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of

from stillroom.methods import sp
from stillroom.methods.sp import SP
from stillroom.types import Output


def similarities(features):
    """Tung and Mori 2019, eqs. 2 and 3: inner products of flattened maps, rows of length 1."""
    rows = features.flatten(1).tolist()
    found = []
    for one in rows:
        row = [sum(x * y for x, y in zip(one, other, strict=True)) for other in rows]
        length = math.sqrt(sum(value**2 for value in row))
        found += [value / length for value in row]
    return found


def naive(student, teacher):
    """Eq. 4: the squared Frobenius norm of the difference over B^2."""
    pairs = zip(similarities(student), similarities(teacher), strict=True)
    return sum((s - t) ** 2 for s, t in pairs) / len(student) ** 2


def charge(student, teacher, taps=(("a",), ("b",))):
    method = SP()
    method.bind_taps(*taps)
    one = next(iter(student.values()))
    batch = batch_of(len(one))
    (value,) = method.loss(Output(pred=one, taps=student), Output(pred=one, taps=teacher), batch, 0.0).values()
    return value.item()


def test_against_loops():
    """Equal to loops; weight 3000, and maps whose width and size differ."""
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.randn(5, 2, 3, 3, dtype=torch.float64)
    assert charge({"a": student}, {"b": teacher}) == pytest.approx(naive(student, teacher), rel=1e-9)
    assert SP.weight == 3000 and SP.default_taps == "last"


def test_tokens_without_their_prefix_and_several_taps():
    torch.manual_seed(1)
    tokens, teacher = torch.randn(4, 11, 3, dtype=torch.float64), torch.randn(4, 2, 3, 3, dtype=torch.float64)
    one, two = naive(tokens[:, 2:], teacher), naive(teacher[:, :1], teacher)
    found = charge({"a": tokens, "c": teacher[:, :1]}, {"b": teacher, "d": teacher}, (("a", "c"), ("b", "d")))
    assert found == pytest.approx(one + two, rel=1e-9)


def test_the_batch_is_that_of_all_processes(monkeypatch):
    """With the other process's rows gathered, half a batch costs what the whole does."""
    torch.manual_seed(2)
    student, teacher = torch.randn(6, 3, 2, 2, dtype=torch.float64), torch.randn(6, 5, 2, 2, dtype=torch.float64)
    whole = charge({"a": student}, {"b": teacher})
    others = iter([student[3:], teacher[3:]])
    monkeypatch.setattr(sp, "gather_rows", lambda x: torch.cat([x, next(others)]))
    assert charge({"a": student[:3]}, {"b": teacher[:3]}) == pytest.approx(whole, rel=1e-12)
