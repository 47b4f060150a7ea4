"""Pair-wise structure distillation against Liu et al. 2019, eq. 1, written as loops."""

from __future__ import annotations

import math

import pytest
from kit.features import charge, drawn, ready
from kit.naive import halved

from stillroom.methods.skd import SKD, skd_loss


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def naive(student, teacher):
    total, count = 0.0, 0
    for one, other in zip(student.flatten(2).mT.tolist(), teacher.flatten(2).mT.tolist(), strict=True):
        for i in range(len(one)):
            for j in range(len(one)):
                total += (cosine(one[i], one[j]) - cosine(other[i], other[j])) ** 2
                count += 1
    return total / count


def test_loops():
    s, t = drawn(3, 4, 3, 5), drawn(3, 2, 3, 5, seed=1)
    assert skd_loss(s, t).item() == pytest.approx(naive(s, t), rel=1e-9)


def test_the_class_sums_over_pairs_at_the_smaller_size():
    s, t = [drawn(3, 4, 4, 4), drawn(3, 5, 2, 2)], [drawn(3, 2, 2, 2, seed=1), drawn(3, 6, 4, 4, seed=1)]

    expected = naive(halved(s[0]), t[0]) + naive(s[1], halved(t[1]))
    assert charge(ready(SKD(), s, t), s, t).item() == pytest.approx(expected, rel=1e-9)
