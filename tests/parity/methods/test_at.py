"""Attention transfer against Zagoruyko and Komodakis 2017, eq. 2, written as loops."""

from __future__ import annotations

import math

import pytest
from kit.features import charge, drawn, ready
from kit.naive import halved

from stillroom.methods.at import AT, at_loss


def looked(image, power):
    """One image [C][h][w]: the mean power of every place, divided by the length of all."""
    places = [(y, x) for y in range(len(image[0])) for x in range(len(image[0][0]))]
    sums = [sum(abs(channel[y][x]) ** power for channel in image) / len(image) for y, x in places]
    length = math.sqrt(sum(value**2 for value in sums))
    return [value / length for value in sums]


def naive(student, teacher, power):
    total, count = 0.0, 0
    for one, other in zip(student.tolist(), teacher.tolist(), strict=True):
        for a, b in zip(looked(one, power), looked(other, power), strict=True):
            total, count = total + (a - b) ** 2, count + 1
    return total / count


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_loops(power):
    s, t = drawn(3, 4, 3, 3), drawn(3, 2, 3, 3, seed=1)
    assert at_loss(s, t, power).item() == pytest.approx(naive(s, t, power), rel=1e-9)


def test_the_class_sums_over_stages_at_the_smaller_size():
    s, t = [drawn(3, 4, 4, 4), drawn(3, 5, 2, 2)], [drawn(3, 2, 2, 2, seed=1), drawn(3, 6, 4, 4, seed=1)]

    expected = naive(halved(s[0]), t[0], 2.0) + naive(s[1], halved(t[1]), 2.0)
    assert charge(ready(AT(), s, t), s, t).item() == pytest.approx(expected, rel=1e-9)
