"""NKD against the paper's equation, as loops."""

from __future__ import annotations

import math

import pytest
import torch
from kit.batches import batch_of

from stillroom.methods.nkd import NKD, nkd_loss
from stillroom.types import Output


def softmax(row, temperature):
    powers = [math.exp(z / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def naive(student, teacher, target, gamma, temperature):
    """Yang et al. 2023: -p_t log p_s of the true class, -gamma T^2 sum of q_t log q_s of the others; means."""
    first = second = 0.0
    for z_s, z_t, y in zip(student, teacher, target, strict=True):
        first -= softmax(z_t, 1)[y] * math.log(softmax(z_s, 1)[y])
        q_s, q_t = (softmax([z for k, z in enumerate(row) if k != y], temperature) for row in (z_s, z_t))
        second -= sum(t * math.log(s) for s, t in zip(q_s, q_t, strict=True))
    return first / len(student), gamma * temperature**2 * second / len(student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_against_loops(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 10).double() * 2, torch.randn(8, 10).double() * 2
    target = torch.randint(10, (8,))
    expected = naive(student.tolist(), teacher.tolist(), target.tolist(), 1.5, temperature)
    found = nkd_loss(student, teacher, target, gamma=1.5, temperature=temperature)
    assert [x.item() for x in found] == pytest.approx(expected, rel=1e-9)


def test_the_method():
    """Defaults gamma 1.5, T 1, weight 1."""
    torch.manual_seed(1)
    student, teacher, target = torch.randn(4, 6).double(), torch.randn(4, 6).double(), torch.randint(6, (4,))
    batch = batch_of(4, target)
    found = NKD().loss(Output(pred=student), Output(pred=teacher), batch, 0.0)
    first, second = naive(student.tolist(), teacher.tolist(), target.tolist(), 1.5, 1.0)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"target": first, "others": second}, rel=1e-9
    )
    assert NKD.weight == 1.0
