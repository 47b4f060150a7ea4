"""NST against Huang and Wang 2017, section 4, written as loops over pairs of channels."""

from __future__ import annotations

import math

import pytest
from kit.features import charge, drawn, ready

from stillroom.methods.nst import NST, nst_loss


def unit(channel):
    flat = [x for row in channel for x in row]
    length = math.sqrt(sum(x * x for x in flat))
    return [x / length for x in flat]


def naive(student, teacher):
    total = 0.0
    for one, other in zip(student.tolist(), teacher.tolist(), strict=True):
        x, y = [unit(channel) for channel in one], [unit(channel) for channel in other]
        for a, b, sign in ((x, x, 1), (y, y, 1), (x, y, -2)):
            squares = [sum(p * q for p, q in zip(i, j, strict=True)) ** 2 for i in a for j in b]
            total += sign * sum(squares) / len(squares)
    return total / len(student)


@pytest.mark.parametrize("size", [(3, 5, 4), (6, 5, 2)])
def test_loops(size):
    c, d, side = size
    s, t = drawn(2, c, side, side), drawn(2, d, side, side, seed=1)
    assert nst_loss(s, t).item() == pytest.approx(naive(s, t), rel=1e-9)


def test_the_class_sums_over_stages_at_the_smaller_size():
    s, t = [drawn(3, 4, 4, 4), drawn(3, 5, 2, 2)], [drawn(3, 2, 2, 2, seed=1), drawn(3, 6, 4, 4, seed=1)]

    def halved(x):
        return x.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))

    expected = naive(halved(s[0]), t[0]) + naive(s[1], halved(t[1]))
    assert charge(ready(NST(), s, t), s, t).item() == pytest.approx(expected, rel=1e-9)
